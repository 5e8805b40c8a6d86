"""Who may read a notice, as its issuer wrote it: TLP 2.0 label, audience, caveats.

Guarantees that a `Handling` is consistent: TLP:RED and TLP:AMBER+STRICT name their readers, TLP:CLEAR is for everybody,
and nobody is addressed who could never read. Whether a given caller may read is decided by `app.gate` alone.

TLP: https://www.first.org/tlp/ (version 2.0, August 2022).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.domain.errors import Malformed
from app.domain.states import STATES
from app.domain.vocabulary import CAVEATS

if TYPE_CHECKING:
    from collections.abc import Iterable


class InvalidHandling(Malformed):
    """Label, audience and caveats that contradict each other or the vocabulary.

    Attributes:
        field: which of tlp, audience, caveats is at fault.
    """

    code = "invalid-handling"

    def __init__(self, field: str, detail: str) -> None:
        """Remember the field, so that a notice's error can point at it."""
        self.field = field
        super().__init__(detail)


_TLP = re.compile(
    r"TLP:(RED|AMBER(?:\+STRICT)?|GREEN|CLEAR)"
)  # with fullmatch: no blanks, capitals, never translated


class Tlp(enum.IntEnum):
    """The Traffic Light Protocol's labels, ordered: the greater, the fewer may read."""

    CLEAR = 0
    GREEN = 1
    AMBER = 2
    AMBER_STRICT = 3
    RED = 4

    @property
    def label(self) -> str:
        """The text on the wire: `TLP:AMBER+STRICT`."""
        return f"TLP:{self.name.replace('_', '+')}"

    @classmethod
    def parse(cls, text: str) -> Tlp:
        """Read a label exactly as TLP 2.0 spells it.

        Raises:
            InvalidHandling: anything else, TLP 1.0's WHITE included.
        """
        match = _TLP.fullmatch(text)
        if match is None:
            labels = ", ".join(tlp.label for tlp in reversed(cls))
            raise InvalidHandling("tlp", f"{text!r} is not a TLP 2.0 label. Use one of {labels}.")
        return cls[match[1].replace("+", "_")]


Audience = frozenset[str] | Literal["ALL"]
"""The States addressed, by alpha-2 code, or ALL Subscribing States. The empty set is nobody."""

_NEEDS_LIST = frozenset({Tlp.RED, Tlp.AMBER_STRICT})


@dataclass(frozen=True, slots=True)
class Handling:
    """Label, audience and caveats. Made by `parse`; an empty audience can be held, so that it means nobody everywhere."""

    tlp: Tlp
    audience: Audience
    caveats: tuple[str, ...] = ()

    @classmethod
    def parse(cls, tlp: str, audience: str | Iterable[str], caveats: Iterable[str] = ()) -> Handling:
        """Read the three members of a main part. An empty list parses: it is nobody.

        Raises:
            InvalidHandling: an unknown label, caveat or State; a member named twice; RED or AMBER+STRICT without a list;
                CLEAR with one.
        """
        label = Tlp.parse(tlp)
        return cls(label, _audience(label, audience), _caveats(caveats))

    def check_for_issue(self) -> None:
        """Refuse an audience of nobody: no State issues a notice that nobody may read.

        Raises:
            InvalidHandling: the audience is empty.
        """
        if not self.audience:
            raise InvalidHandling(
                "audience", "The audience is empty: nobody could read this. Name at least one State, or ALL."
            )

    def addresses(self, state: str) -> bool:
        """Whether the State is in the audience. Says nothing of the issuer, who always may read its own."""
        return self.audience == "ALL" or state in self.audience

    def wire(self) -> dict[str, str | list[str]]:
        """The three members as they stand in a main part, lists sorted."""
        audience = "ALL" if self.audience == "ALL" else sorted(self.audience)
        return {"tlp": self.tlp.label, "audience": audience, "caveats": list(self.caveats)}


def _audience(label: Tlp, audience: str | Iterable[str]) -> Audience:
    if audience == "ALL":
        if label in _NEEDS_LIST:
            raise InvalidHandling("audience", f"{label.label} needs a list of States as audience, not ALL.")
        return "ALL"
    if isinstance(audience, str):
        raise InvalidHandling("audience", 'The audience is either "ALL" or a list of alpha-2 codes.')
    if label is Tlp.CLEAR:
        raise InvalidHandling(
            "audience", "TLP:CLEAR is public: its audience is ALL. To address some States, use TLP:AMBER."
        )
    members = list(audience)
    states = frozenset(members)
    if len(states) != len(members):
        raise InvalidHandling("audience", "A State is named twice in the audience. Name each once.")
    strangers = sorted(states - STATES.keys())
    if strangers:
        raise InvalidHandling(
            "audience",
            f"{', '.join(strangers)}: not a Subscribing State. Use alpha-2 codes in capitals, such as EE.",
        )
    return states


def _caveats(caveats: Iterable[str]) -> tuple[str, ...]:
    listed = tuple(caveats)
    unknown = [caveat for caveat in listed if caveat not in CAVEATS]
    if unknown:
        raise InvalidHandling("caveats", f"{unknown[0]!r} is not a caveat. Use {', '.join(CAVEATS)}.")
    if len(set(listed)) != len(listed):
        raise InvalidHandling("caveats", "A caveat is named twice. Name each once.")
    return listed
