"""The setup guides in scim/guides, one file for each product of a vendor: their format, and how they stand in docs/idp."""

import tomllib
from datetime import date
from functools import cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scim.profile import PROFILE_FOLDER

FOLDER = PROFILE_FOLDER.with_name("guides")
UNVERIFIED = "*(no vendor page says it)*"
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(_Strict):
    """A page on the web, as it was when it was read."""

    title: Text
    url: Annotated[str, Field(pattern="^https://")]
    read: date
    vendor: Annotated[bool, Field(description="Whether the vendor of the IdP wrote it.")] = True


class Claim(_Strict):
    """What is said, and why it may be believed: pages, this service itself, or nothing yet."""

    pages: Annotated[tuple[Text, ...], Field(description="Keys of the guide's pages.")] = ()
    basis: Literal["pages", "service", "unverified"] = "pages"

    @model_validator(mode="after")
    def _has_one_basis(self) -> Self:
        if bool(self.pages) != (self.basis == "pages"):
            raise ValueError("a claim has pages, or says that it is about this service or unverified")
        return self


class Step(Claim):
    do: Text
    paste: Annotated[str, Field(description="The value to enter, where there is one.")] = ""
    code: Annotated[str, Field(description="A text of several lines to enter.")] = ""


class Part(_Strict):
    title: Text
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]


class Fact(Claim):
    text: Text


class Trouble(Claim):
    symptom: Text
    cause: Text
    mend: Text


class Requests(_Strict):
    """The bases of what the profile says of the IdP's requests, in its order."""

    attributes: Claim
    groups: Claim
    deactivation: Claim
    roles: Claim
    manager: Claim
    leaver: tuple[Claim, ...]
    delete: Claim
    flags: tuple[Claim, ...] = ()
    quirks: tuple[Claim, ...] = ()

    def claims(self) -> list[Claim]:
        single = (self.attributes, self.groups, self.deactivation, self.roles, self.manager, self.delete)
        return [*single, *self.leaver, *self.flags, *self.quirks]


class Guide(_Strict):
    title: Text
    profiles: Annotated[tuple[Text, ...], Field(min_length=1, description="Whose pages it stands on.")]
    pages: dict[str, Page]
    before: tuple[Fact, ...] = ()
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    facts: tuple[Fact, ...] = ()
    troubles: Annotated[tuple[Trouble, ...], Field(min_length=1)]
    requests: Requests | None = None

    @model_validator(mode="after")
    def _cites_its_pages(self) -> Self:
        cited = {key for claim in self.claims() for key in claim.pages}
        if cited != set(self.pages):
            raise ValueError(f"cited but not listed, or listed but not cited: {sorted(cited ^ set(self.pages))}")
        return self

    def claims(self) -> list[Claim]:
        steps = [step for part in self.parts for step in part.steps]
        requests = self.requests.claims() if self.requests else []
        return [*self.before, *steps, *self.facts, *self.troubles, *requests]


@cache
def guides() -> tuple[Guide, ...]:
    return tuple(Guide.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*.toml")))


def guides_of(profile: str) -> "list[Citations]":
    """The guides on the page of a profile, with the numbers of their pages, which go on from guide to guide."""
    found: list[Citations] = []
    for guide in guides():
        if profile in guide.profiles:
            found.append(Citations(guide, 1 + sum(len(one.guide.pages) for one in found)))
    return found


def rendered(said: "Citations", level: str) -> str:
    """A guide in Markdown; `level` is the mark of its headings."""
    guide = said.guide
    parts = [_bullets(said, guide.before)]
    parts += [f"{level} {part.title}\n\n{_steps(said, part)}" for part in guide.parts]
    if guide.facts:
        parts.append(f"{level} What to know\n\n{_bullets(said, guide.facts)}")
    rows = [(trouble.symptom, trouble.cause, said.after(trouble.mend, trouble)) for trouble in guide.troubles]
    parts.append(f"{level} When it does not work\n\n{table(('what is seen', 'cause', 'what to do'), rows)}")
    parts.append(f"{level} Pages\n\n{said.listed()}")
    return "\n".join(part for part in parts if part)


class Citations:
    """A guide, and the numbers of its pages in the order in which its file lists them."""

    def __init__(self, guide: Guide, first: int) -> None:
        self.guide = guide
        self.pages = guide.pages
        self.numbers = {key: number for number, key in enumerate(guide.pages, first)}

    def after(self, text: str, claim: Claim) -> str:
        numbers = ", ".join(f"[{number}]" for number in sorted(self.numbers[key] for key in claim.pages))
        return text + (f" ({numbers})" if numbers else "") + (f" {UNVERIFIED}" if claim.basis == "unverified" else "")

    def listed(self) -> str:
        rows = [
            (f"[{self.numbers[key]}]", page.title if page.vendor else f"{page.title}; not a page of this vendor", str(page.read))
            for key, page in self.pages.items()
        ]
        links = "".join(f"[{self.numbers[key]}]: {page.url}\n" for key, page in self.pages.items())
        return f"{table(('', 'page', 'read on'), rows)}\n{links}"


def _steps(said: Citations, part: Part) -> str:
    lines: list[str] = []
    for number, step in enumerate(part.steps, 1):
        paste = f": `{step.paste}`" if step.paste else ""
        lines.append(f"{number}. {said.after(step.do + paste, step)}.\n")
        lines += ["\n   ```json\n", *(f"   {line}\n" for line in step.code.splitlines()), "   ```\n\n"] if step.code else []
    return "".join(lines)


def _bullets(said: Citations, facts: tuple[Fact, ...]) -> str:
    return "".join(f"- {said.after(fact.text, fact)}\n" for fact in facts)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
