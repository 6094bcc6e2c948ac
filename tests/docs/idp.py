"""Writes the generated parts of docs/idp and the JSON Schema of profiles: `make docs`, or `python -m tests.docs.idp`."""

import re
from pathlib import Path

from scim.leniency import LISTED
from scim.profile import PROFILE_FOLDER, Profile, format_schema, profile_of, shipped

DOCS = Path(__file__).parents[2] / "docs" / "idp"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def names() -> list[str]:
    return list(dict.fromkeys(text.partition("@")[0] for text in shipped()))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def bullets(texts: tuple[str, ...]) -> str:
    return "".join(f"- {text}\n" for text in texts)


def admin(profile: Profile) -> str:
    given = profile.file.admin
    steps = "".join(f"{n}. {s.do}{f': **{s.paste}**' if s.paste else ''}\n" for n, s in enumerate(given.steps, 1))
    parts = [bullets(given.before), steps, bullets(given.notes), f"Where this is from: {given.source}\n"]
    return "\n".join(part for part in parts if part)


def representation(profile: Profile) -> str:
    given = profile.file
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
    return table(("tolerance", "what is accepted"), rows) + f"\n{members[profile.unknown_member]}\n"


def index(_: Profile) -> str:
    rows = [(f"[{profile_of(n).file.title}]({n}.md)", f"`{profile_of(n).text}`") for n in names()]
    return table(("identity provider", "profile"), rows)


PARTS = {"admin": admin, "representation": representation, "mapping": mapping, "forgiven": forgiven, "index": index}


def generated(text: str, profile: Profile) -> str:
    """A page with its generated parts as they are now."""
    return PART.sub(lambda m: f"{m[1]}{PARTS[m[2]](profile)}{m[3]}", text)


def empty_page(profile: Profile) -> str:
    return f"""# {profile.file.title}

Profile `{profile.text}`: `scim-ledger directory create SLUG --profile {profile.file.name}`, or for an existing directory
`scim-ledger directory profile set SLUG {profile.file.name}`. Everything below is generated from `scim/profiles/{profile.text}.toml`.

## What the admin clicks and pastes

`LEDGER` is the public address of the service, `DIRECTORY` the name of the directory; `scim-ledger token issue scim --directory DIRECTORY`
prints the token.

<!-- generated: admin -->
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
