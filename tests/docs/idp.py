"""Writes the generated parts of docs/idp and the JSON Schema of profiles: `make docs`, or `python -m tests.docs.idp`."""

import re
from pathlib import Path

from scim.leniency import LISTED
from scim.profile import PROFILE_FOLDER, Profile, ProfileFile, Representation, format_schema, profile_of, shipped
from scim.strictness import Strictness
from tests.docs.guides import Citations, Claim, Requests, guides_of, rendered, table

DOCS = Path(__file__).parents[2] / "docs" / "idp"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def names() -> list[str]:
    return list(dict.fromkeys(text.partition("@")[0] for text in shipped()))


def bullets(texts: tuple[str, ...]) -> str:
    return "".join(f"- {text}\n" for text in texts)


def guide(profile: Profile) -> str:
    found = guides_of(profile.file.name)
    if len(found) == 1:
        return rendered(found[0], "###")
    return "\n".join(f"### {one.guide.title}\n\n{rendered(one, '####')}" for one in found)


def representation(profile: Profile) -> str:
    for said in guides_of(profile.file.name):
        if said.guide.requests:
            return _represented(_cited(profile, said, said.guide.requests))
    return _represented(profile.file)


def _cited(profile: Profile, said: Citations, requests: Requests) -> ProfileFile:
    """The profile's file with the numbers of pages behind its texts."""
    given = profile.file

    def each(texts: tuple[str, ...], claims: tuple[Claim, ...]) -> tuple[str, ...]:
        return tuple(said.after(text, claim) for text, claim in zip(texts, claims, strict=True))

    represented = {name: said.after(text, getattr(requests, name)) for name, text in given.representation}
    deactivation = given.deactivation.model_copy(
        update={
            "leaver": each(given.deactivation.leaver, requests.leaver),
            "delete": said.after(given.deactivation.delete, requests.delete),
            "flags": each(given.deactivation.flags, requests.flags),
        }
    )
    quirks = each(given.quirks, requests.quirks)
    update = {"representation": Representation(**represented), "deactivation": deactivation, "quirks": quirks}
    return given.model_copy(update=update)


def _represented(given: ProfileFile) -> str:
    rows = [(name, text) for name, text in given.representation]
    rows += [("a leaver", "<br>".join(given.deactivation.leaver)), ("DELETE", given.deactivation.delete)]
    rows += [("settings in the IdP that change this", "<br>".join(given.deactivation.flags))] if given.deactivation.flags else []
    rows += [("test objects", ", ".join(f"`{p}`" for p in given.test_objects))] if given.test_objects else []
    quirks = f"\n{bullets(given.quirks)}" if given.quirks else ""
    return table(("", f"what {given.title} sends"), rows) + quirks


def mapping(profile: Profile) -> str:
    given = profile.file.user
    rows = [(f"`{n}`", "<br>".join(f"`{path}`" for path in paths)) for n, paths in given if isinstance(paths, tuple)]
    rows += [(f"`custom.{n}`", "<br>".join(f"`{path}`" for path in paths)) for n, paths in given.custom.items()]
    rows += (
        [("`custom`", "every extension that has no schema in the directory, with its URN as the key")] if given.extensions else []
    )
    json = "\nIf a role is a string that contains JSON, `data.user` has the `value` in it.\n" if given.json_roles else ""
    return table(("`data.user`", "from"), rows) + json


def forgiven(profile: Profile) -> str:
    members = {
        "refuse": "If a group member is not an id of this service, the request is refused with an error that names the member.",
        "externalId": "If a group member is not an id of this service, it means the user with that `externalId`.",
        "userName": "If a group member is not an id of this service, it means the user with that `userName`.",
    }
    rows = [(f"`{tolerance}`", tolerance.forgives) for tolerance in LISTED if tolerance in profile.tolerances]
    said = table(("tolerance", "what is accepted"), rows) if rows else "Nothing is forgiven.\n"
    strict = [(f"`{one}`", one.demands) for one in Strictness if one in profile.strictness]
    demanded = f"\nAnd it is stricter than the RFCs:\n\n{table(('strictness', 'what it means'), strict)}" if strict else ""
    return f"{said}{demanded}\n{members[profile.unknown_member]}\n"


def index(_: Profile) -> str:
    rows = [(f"[{profile_of(n).file.title}]({n}.md)", f"`{profile_of(n).text}`") for n in names()]
    return table(("identity provider", "profile"), rows)


PARTS = {"guide": guide, "representation": representation, "mapping": mapping, "forgiven": forgiven, "index": index}


def generated(text: str, profile: Profile) -> str:
    """A page with its generated parts as they are now."""
    return PART.sub(lambda m: f"{m[1]}{PARTS[m[2]](profile)}{m[3]}", text)


def empty_page(profile: Profile) -> str:
    return f"""# {profile.file.title}

Profile `{profile.text}`: `scim-ledger directory create SLUG --profile {profile.file.name}`, or for an existing directory
`scim-ledger directory profile set SLUG {profile.file.name}`. Everything below is generated, from `scim/guides` and `scim/profiles/{profile.text}.toml`.

## Set it up

First, here: create the directory with the command above, and issue its token with `scim-ledger token issue scim --directory DIRECTORY`, which prints it
once. It expires after a year; `--days` sets another time. The IdP must reach the service by HTTPS. Below, `https://LEDGER` is the public
address of the service (`LEDGER_PUBLIC_URL`), and `DIRECTORY` the name of the directory; `scim-ledger directory show DIRECTORY` prints the whole URL.

At the end, look here: `scim-ledger events list --directory DIRECTORY` shows the users that were created, and a test user whom you deactivate in the IdP gets
`user.deactivated`. `scim-ledger directory doctor DIRECTORY` ends with exit code 0 if there is nothing to do, and otherwise says what to change.

<!-- generated: guide -->
<!-- end -->

## How this identity provider represents users and groups

<!-- generated: representation -->
<!-- end -->

## The user that is the same for every IdP

Every user event carries this user as `data.user`. Each field takes the value of the first path that has one; a field without a value is left out.

<!-- generated: mapping -->
<!-- end -->

## Which deviations are accepted

Every other deviation from the RFCs is refused with an error that says what to change.

<!-- generated: forgiven -->
<!-- end -->
"""


def main() -> None:
    PROFILE_FOLDER.joinpath("schema.json").write_bytes(format_schema())
    for name in names():
        page = DOCS / f"{name}.md"
        text = page.read_text(encoding="utf-8") if page.exists() else empty_page(profile_of(name))
        page.write_text(generated(text, profile_of(name)), encoding="utf-8")
    readme = DOCS / "README.md"
    readme.write_text(generated(readme.read_text(encoding="utf-8"), profile_of("generic")), encoding="utf-8")


if __name__ == "__main__":
    main()
