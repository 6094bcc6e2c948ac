"""Profiles: what a kind of identity provider sends, and what of it is forgiven. Each is a versioned file in scim/profiles.

The format of the files is in schema.json beside them. What decides how a request is read is never edited in a version that was
released, because stored events name it (`okta@1`): such a change is a new file with the next version. Its texts for people are corrected.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from scim.attribute_map import UserMap, read_path
from scim.errors import ScimError
from scim.leniency import LISTED, Tolerance
from scim.strictness import INTEROPERABLE, Strictness

PROFILE_FOLDER: Final = Path(__file__).with_name("profiles")
NAME_SHOWN_MAX: Final = 100  # characters of an unknown name in the error that repeats it: the name may be as long as a request


class UnknownProfileError(ValueError):
    """There is no profile of this name and version; the text lists those that there are."""


class ProfileError(ValueError):
    """A profile file does not follow the format; the text names each place."""


def _is_tolerance(name: str) -> str:
    if name not in LISTED:
        raise ValueError(f"there is no tolerance {name}; there are {', '.join(LISTED)}")
    return name


def _is_path(text: str) -> str:
    try:
        read_path(text)
    except ScimError as refused:
        raise ValueError(f"{text} is no path of a user: {refused.detail}") from refused
    return text


ToleranceName = Annotated[str, AfterValidator(_is_tolerance), WithJsonSchema({"type": "string", "enum": list(LISTED)})]
ScimPath = Annotated[
    str, AfterValidator(_is_path), WithJsonSchema({"type": "string", "minLength": 1, "description": "a path of RFC 7644 §3.5.2"})
]
Paths = Annotated[tuple[ScimPath, ...], Field(min_length=1, description="The first path that has a value gives it.")]
Text = Annotated[str, Field(min_length=1)]
UnknownMember = Literal["refuse", "externalId", "userName"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UserPaths(_Strict):
    """For each attribute of the user that is the same for every IdP, the paths at which this IdP sends it."""

    id: Paths = ("id",)
    external_id: Paths = ("externalId",)
    user_name: Paths = ("userName",)
    active: Paths = ("active",)
    email: Paths
    given_name: Paths
    family_name: Paths
    display_name: Paths
    title: Paths
    department: Paths
    manager_id: Paths
    employee_number: Paths
    roles: Paths
    custom: Annotated[dict[str, Paths], Field(description="Further attributes by the name they get under `custom`.")] = {}
    extensions: Annotated[
        bool, Field(description="Whether extensions that have no schema here go under `custom` too, whole, by their URN.")
    ] = True
    json_roles: Annotated[
        bool, Field(description="Whether a role may be a JSON object in a string, whose `value` is the role.")
    ] = False


class Deactivation(_Strict):
    """What this IdP sends when somebody leaves."""

    leaver: Annotated[tuple[Text, ...], Field(min_length=1, description="What the IdP does, and the request it then sends.")]
    delete: Annotated[Text, Field(description="Whether and when DELETE is sent.")]
    flags: Annotated[tuple[Text, ...], Field(description="Settings of the IdP that change this.")] = ()


class Step(_Strict):
    """One step that the admin of the IdP takes."""

    do: Text
    paste: Annotated[str, Field(description="The value to enter, where there is one.")] = ""


class Admin(_Strict):
    """How the admin connects this IdP: what to click and to paste."""

    source: Annotated[Text, Field(description="Where these facts are from.")]
    before: tuple[Text, ...] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    notes: tuple[Text, ...] = ()


PER_SECOND_MIN: Final = 25  # requests of a directory: the IPSIE profile asks for no less ("Performance and Efficiency")
PER_SECOND_MAX: Final = 100_000


class RateLimit(_Strict):
    """How many SCIM requests a directory may send: `per_second` for ever, and `burst` at once after a pause."""

    per_second: Annotated[int, Field(ge=PER_SECOND_MIN, le=PER_SECOND_MAX)]
    burst: Annotated[int, Field(ge=PER_SECOND_MIN, le=10 * PER_SECOND_MAX, description="At least per_second.")]

    @model_validator(mode="after")
    def _lasts_a_second(self) -> Self:
        if self.burst < self.per_second:
            raise ValueError("burst is less than per_second, so that requests of one second would be refused")
        return self


class Representation(_Strict):
    """How this directory represents things, in the words of whoever runs the IdP."""

    attributes: Text
    groups: Text
    deactivation: Text
    roles: Text
    manager: Text


class Expected(_Strict):
    """What the health of a directory expects of this IdP. It decides nothing about requests, so it may be corrected in a released version."""

    external_id: Annotated[bool, Field(description="Whether each user has an externalId.")] = False
    email_user_names: Annotated[bool, Field(description="Whether userName is an e-mail address.")] = False
    cycle_minutes: Annotated[
        int | None, Field(ge=1, le=10_080, description="How often the IdP synchronises; absent if it sends changes at once.")
    ] = None


class ProfileFile(_Strict):
    """A profile: how a kind of identity provider speaks SCIM, and how its users become the users of the event feed."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,30}$")]
    version: Annotated[int, Field(ge=1)]
    title: Text
    tolerances: Annotated[tuple[ToleranceName, ...], Field(description="Deviations from the RFCs that are forgiven.")]
    unknown_member: Annotated[
        UnknownMember, Field(description="What a group member is that is no id of ours: an error, or another key of a user.")
    ] = "refuse"
    strictness: Annotated[
        tuple[Strictness, ...], Field(description="What is refused, or done otherwise, that the RFCs leave open.")
    ] = ()
    rate_limit: Annotated[
        RateLimit | None,
        Field(description="The limit of SCIM requests of each directory for which no other is set; absent: none."),
    ] = None
    test_objects: Annotated[
        tuple[Text, ...],
        Field(description="Patterns of userNames of users that the IdP makes to test the connection; `*` is anything."),
    ] = ()
    expected: Expected = Expected()
    user: UserPaths
    deactivation: Deactivation
    representation: Representation
    quirks: tuple[Text, ...] = ()
    admin: Admin


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """A profile that was read from its file; `text` is its name and version, as events store it."""

    text: str
    file: ProfileFile
    tolerances: frozenset[Tolerance]
    user: UserMap
    strictness: frozenset[Strictness] = frozenset()

    @property
    def is_interoperable(self) -> bool:
        """Whether all of the SCIM interoperability profile holds under it (`interopProfileConformant`)."""
        return self.strictness >= INTEROPERABLE and not self.tolerances

    @property
    def unknown_member(self) -> UnknownMember:
        return self.file.unknown_member


def read_profile(raw: bytes, *, json: bool = False) -> Profile:
    """A profile from the bytes of its file, TOML unless `json`. Raises ProfileError naming every place that is wrong."""
    try:
        document: Any = orjson.loads(raw) if json else tomllib.loads(raw.decode())
        file = ProfileFile.model_validate(document)
    except ValidationError as wrong:
        places = (f"{'.'.join(map(str, error['loc'])) or 'the file'}: {error['msg']}" for error in wrong.errors())
        raise ProfileError("\n".join(places)) from wrong
    except ValueError as wrong:
        raise ProfileError(f"The file cannot be read as {'JSON' if json else 'TOML'}: {wrong}") from wrong
    paths = {name: value for name, value in file.user if name not in {"custom", "extensions", "json_roles"}}
    mapping = UserMap(paths, file.user.custom, extensions=file.user.extensions, json_roles=file.user.json_roles)
    return Profile(f"{file.name}@{file.version}", file, _tolerances(file), mapping, frozenset(file.strictness))


def _tolerances(file: ProfileFile) -> frozenset[Tolerance]:
    own_key = () if file.unknown_member == "refuse" else (Tolerance.UNKNOWN_MEMBER,)
    return frozenset((*map(Tolerance, file.tolerances), *own_key))


@cache
def shipped() -> Mapping[str, Path]:
    """The files of the released profiles, by `name@version`; the versions of a name are in their order."""
    found = sorted(
        PROFILE_FOLDER.glob("*.toml"), key=lambda path: (path.stem.partition("@")[0], int(path.stem.partition("@")[2]))
    )
    return {path.stem: path for path in found}


@lru_cache(maxsize=256)
def profile_of(text: str) -> Profile:
    """The profile `name@version`, or the newest version of `name`. Raises UnknownProfileError."""
    files = shipped()
    newest = [stem for stem in files if stem.partition("@")[0] == text]
    stem = newest[-1] if newest else text
    if stem not in files:
        raise UnknownProfileError(f"There is no profile {text[:NAME_SHOWN_MAX]} here. There are {', '.join(files)}.")
    return read_profile(files[stem].read_bytes())


@lru_cache(maxsize=256)
def own_profile(document: str) -> Profile:
    """The profile that an operator stored as JSON. Raises ProfileError where this release cannot read it."""
    return read_profile(document.encode(), json=True)


def as_stored(file: ProfileFile) -> str:
    """An operator's profile as JSON. A release from before strict profiles refuses their fields: only those that use them have them."""
    unused = {name for name in ("strictness", "rate_limit") if not getattr(file, name)}
    return file.model_dump_json(exclude=unused)


def is_shipped(name: str) -> bool:
    """Whether this release has a profile of this name, in any version."""
    return any(text.partition("@")[0] == name for text in shipped())


def mapped_user(profile: Profile, document: Mapping[str, Any]) -> dict[str, Any]:
    """The user that is the same for every IdP, from a stored document; absent attributes are left out."""
    return profile.user.of(document)


def is_test_object(profile: Profile, user_name: str) -> bool:
    """Whether a userName is that of a user whom this IdP creates only to test the connection."""
    return any(_matches_pattern(pattern.casefold(), user_name.casefold()) for pattern in profile.file.test_objects)


def _matches_pattern(pattern: str, text: str) -> bool:
    first, *others = pattern.split("*")
    if not others:
        return text == first
    if not text.startswith(first):
        return False
    place = len(first)
    for part in others[:-1]:
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return text.endswith(others[-1]) and len(text) - len(others[-1]) >= place


def format_schema() -> bytes:
    """The JSON Schema of the format, as it stands in scim/profiles/schema.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ProfileFile.model_json_schema()}
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2) + b"\n"
