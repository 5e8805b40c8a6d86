"""A notice: a main part that was read strictly and follows the schema of its type.

Guarantees, for whoever holds a `Notice`: the schema of a known type and version, consistent handling with at least one
addressee, printable text throughout, every rule that the main part alone can break. Left to intake and judging: whether
the issuer is the State whose log carries it, the statement's kind and `ref`, the clock, the roster, attachments' bytes.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from app.domain.control_codes import ControlCode
from app.domain.errors import InvalidNotice, UnknownNoticeType, UnknownSchemaVersion
from app.domain.handling import Handling, InvalidHandling
from app.domain.json import JsonValue, parse_strict
from app.domain.names import first_unprintable, fold
from app.domain.notices.bodies import Amendment
from app.domain.notices.envelope import KIND_OF_TYPE, MODELS, SCHEMA_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from app.domain.notices.bodies import Body, Fault
    from app.domain.notices.envelope import MainPart
    from app.domain.notices.shared import Ref, Reference
    from app.domain.party import Party
    from app.domain.statement import Kind

MAX_ERRORS = 50
"""More than an officer mends in one go; a hostile document could otherwise yield one per member."""


@dataclass(frozen=True)
class Notice:
    """One valid main part. `document` is the JSON as parsed: read it, never change it."""

    document: dict[str, Any] = field(repr=False)
    main: MainPart = field(repr=False)
    handling: Handling

    @property
    def type(self) -> str:
        """One of NOTICE_TYPES."""
        return self.main.type

    @property
    def schema_version(self) -> str:
        """The version the issuer wrote, semver."""
        return self.main.schema_version

    @property
    def kind(self) -> Kind:
        """The only kind of statement that may carry it."""
        return KIND_OF_TYPE[self.main.type]

    @property
    def issuer(self) -> str:
        """Alpha-2 code of the State that says this."""
        return self.main.issuer

    @property
    def title(self) -> str:
        """One line."""
        return self.main.title

    @property
    def summary(self) -> str:
        """A short text."""
        return self.main.summary

    @property
    def body(self) -> Body:
        """The typed body; `document["body"]` is the same as JSON."""
        return self.main.body

    @property
    def effective_from(self) -> date | None:
        """First day it takes effect."""
        return self.main.effective_from

    @property
    def valid_until(self) -> date | None:
        """Last day it is valid, where the issuer set an end."""
        return self.main.valid_until

    @property
    def review_due(self) -> date | None:
        """The review date as written."""
        return self.main.review_due

    @property
    def effective_review_due(self) -> date | None:
        """The review date as written, else the type's default: for a denial three years after `denied_on`."""
        return self.main.review_due or self.main.default_review()

    @property
    def denied_on(self) -> date | None:
        """Date of the decision, for denials."""
        day: date | None = getattr(self.main.body, "denied_on", None)
        return day

    @property
    def references(self) -> tuple[Reference, ...]:
        """The envelope's references."""
        return self.main.references

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The notices the body is about: what an amendment amends, what an acknowledgement acknowledges, and so on."""
        return tuple(self.main.body.all_refs())

    @cached_property
    def _parties(self) -> tuple[Party, ...]:
        return tuple([party.party() for party in self.main.body.all_parties()])

    def parties(self) -> tuple[Party, ...]:
        """Every party, in document order."""
        return self._parties

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], ...]:
        return tuple([party.names() for party in self._parties])

    def names(self) -> tuple[tuple[str, ...], ...]:
        """For each party its names, aliases and native names as written."""
        return self._names

    def countries(self) -> tuple[str, ...]:
        """Alpha-2 codes, once each: destination, regions or State concerned, then the parties' countries."""
        listed = list(self.main.body.all_countries())
        for party in self.parties():
            listed.extend(party.countries())
        return tuple(dict.fromkeys(listed))

    def codes(self) -> tuple[ControlCode, ...]:
        """Control-list and tariff codes, once each."""
        return tuple(dict.fromkeys(self.main.body.all_codes()))

    def concerns(self) -> tuple[str, ...]:
        """Human-rights concern codes, once each."""
        return tuple(dict.fromkeys(self.main.body.all_concerns()))

    def search_text(self) -> str:
        """Title, summary, reference and narratives, folded as `names.fold` does. Parties' names are not in it."""
        main = self.main
        texts = (main.title, main.summary, main.national_reference, *main.body.texts())
        return fold(" ".join(text for text in texts if text is not None))


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_main(raw: bytes) -> Notice:
    """Read the exact bytes of a main part.

    Raises:
        MalformedJson: not strict JSON.
        UnknownNoticeType, UnknownSchemaVersion: to be kept and flagged if a peer's.
        InvalidNotice: it breaks its schema or a rule.
    """
    document = parse_strict(raw)
    return _validated(document, clean=_is_clean_text(raw) or _is_clean(document))


def validate_main(document: JsonValue) -> Notice:
    """Check a main part that is already parsed. The document must not be changed afterwards.

    Raises:
        UnknownNoticeType, UnknownSchemaVersion: to be kept and flagged if a peer's.
        InvalidNotice: it breaks its schema or a rule.
    """
    return _validated(document, clean=_is_clean(document))


def _validated(document: JsonValue, *, clean: bool) -> Notice:
    model = _model(document)
    try:
        main = model.model_validate(document)
    except ValidationError as error:
        raise InvalidNotice([*_schema_faults(error), *_text_faults(document)][:MAX_ERRORS]) from error
    faults: list[Fault] = []
    handling = None
    try:
        handling = _handling(main.tlp, main.audience, main.caveats)
    except InvalidHandling as error:
        faults.append((f"/{error.field}", str(error)))
    if not clean:
        faults.extend(_text_faults(document))
    faults.extend(main.rules())
    if not faults and isinstance(main.body, Amendment):
        faults.extend(_replacement_faults(main, main.body, handling))
    if faults or handling is None:
        raise InvalidNotice(faults[:MAX_ERRORS])
    return Notice(document, main, handling)


@lru_cache(maxsize=256)  # of a million notices most are handled in one of a few ways
def _handling(tlp: str, audience: str | tuple[str, ...], caveats: tuple[str, ...]) -> Handling:
    handling = Handling.parse(tlp, audience, caveats)
    handling.check_for_issue()
    return handling


def _model(document: JsonValue) -> type[MainPart]:
    if not isinstance(document, dict):
        raise InvalidNotice([("", "a notice is a JSON object")])
    for name in ("type", "schema_version"):
        if not isinstance(document.get(name), str):
            raise InvalidNotice([(f"/{name}", "required, and a text")])
    notice_type, version = document["type"], document["schema_version"]
    known = SCHEMA_VERSIONS.get(notice_type)
    if known is None:
        raise UnknownNoticeType(
            f"The notice type {notice_type[:64]!r} is not one this version knows. Use one of {', '.join(SCHEMA_VERSIONS)}."
        )
    wanted = _semver(version)
    for newest in known:
        major, minor, _ = _semver(newest)
        if wanted[0] == major and wanted[1] <= minor:
            return _built(MODELS[notice_type, major])
    raise UnknownSchemaVersion(
        f"Version {version} of {notice_type} is not one this version knows. Use {' or '.join(known)}, or upgrade this node."
    )


_BUILDING: Final = threading.Lock()


def _built(model: type[MainPart]) -> type[MainPart]:
    """The model with its validator, which is made at the first notice of its type: making all takes longer than all else
    that a process does at its start, and most processes never see most types.
    """
    if not model.__pydantic_complete__:
        with _BUILDING:
            model.model_rebuild()
    return model


@lru_cache(maxsize=256)  # a few versions, written a million times
def _semver(version: str) -> tuple[int, int, int]:
    numbers = version.split(".")
    if len(numbers) != 3 or not all(n.isascii() and n.isdigit() and len(n) < 6 for n in numbers):  # noqa: PLR2004
        raise InvalidNotice([("/schema_version", "must be a semantic version such as 1.0.0")])
    major, minor, patch = (int(n) for n in numbers)
    return major, minor, patch


def _replacement_faults(main: MainPart, body: Amendment, handling: Handling | None) -> Iterator[Fault]:
    """A full new version is judged when it is said, not only when it is applied."""
    document = body.change.replacement
    if document is None:
        return
    pointer = "/body/change/replacement"
    try:
        replacement = validate_main(document)
    except InvalidNotice as error:
        yield from ((pointer + inner, detail) for inner, detail in error.errors)
        return
    if replacement.kind != "issue":
        yield f"{pointer}/type", f"a notice does not become a notice of type {replacement.type} by amendment"
    if replacement.issuer != main.issuer:
        yield f"{pointer}/issuer", "only the issuer amends: the issuer stays the same"
    if replacement.handling != handling:
        yield (
            pointer,
            "tlp, audience and caveats of the new version must equal those of the amendment that carries it",
        )


# ── errors, as JSON pointers (RFC 6901) ───────────────────────────────────────────────────────────────────────────

_PLAIN = {
    "missing": "required",
    "extra_forbidden": "not a member of this schema: remove it",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}


def _schema_faults(error: ValidationError) -> list[Fault]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # "[key]" is pydantic's mark for a fault in a member's name; the member itself is what to point at.
    return [
        (
            _pointer([step for step in fault["loc"] if step != "[key]"]),
            _PLAIN.get(fault["type"]) or _plainly(fault["msg"]),
        )
        for fault in found[:MAX_ERRORS]
    ]


_NOISE = re.compile(r"^(Input|String|Tuple|Dictionary) should | after validation, not [0-9]+$")


def _plainly(message: str) -> str:
    """A sentence of pydantic without its Python: "must have at least 1 item"."""
    return _NOISE.sub(lambda noise: "must " if noise[1] else "", message)


def _pointer(steps: list[str | int]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


# ── every text of the document ────────────────────────────────────────────────────────────────────────────────────


def _is_clean_text(raw: bytes) -> bool:
    """The same for a whole JSON text without escapes and line breaks, as our tools write it: a few microseconds."""
    if b"\\" in raw or b"null" in raw:
        return False
    text = raw.decode()
    return text.isprintable() and (text.isascii() or first_unprintable(text) is None)


def _is_clean(value: JsonValue) -> bool:
    """Whether every text can be seen for what it is, and nothing is null outside a merge patch. The common case, fast."""
    kind = type(value)
    if kind is str:
        return first_unprintable(value) is None
    if kind is dict:
        return all(map(_is_clean, value)) and all(map(_is_clean, value.values()))
    if kind is list:
        return all(map(_is_clean, value))
    return value is not None


def _text_faults(value: JsonValue, pointer: str = "", *, patch: bool = False) -> Iterator[Fault]:
    if isinstance(value, str):
        found = first_unprintable(value)
        if found is not None:
            yield (
                pointer,
                f"holds U+{ord(found[1]):04X} at position {found[0]}, which cannot be seen or reorders text: remove it",
            )
    elif isinstance(value, dict):
        for name, member in value.items():
            if first_unprintable(name) is not None:
                yield pointer, "has a member whose name cannot be printed"
            else:
                inner = f"{pointer}{_pointer([name])}"
                yield from _text_faults(member, inner, patch=patch or inner == "/body/change/merge_patch")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _text_faults(member, f"{pointer}/{index}", patch=patch)
    elif value is None and not patch:
        yield pointer, "is null: leave the member out instead"
