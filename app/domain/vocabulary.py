"""The closed vocabularies of notices (design section 3): codes with their labels.

Guarantees that a code means the same at every node. The human-rights concerns and the control-list items of human-rights
relevance are read once, at import, from the packaged CSV files; everything else is written here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping


def _rows(name: str) -> list[dict[str, str]]:
    text = files("app.data.vocabulary").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@dataclass(frozen=True, slots=True)
class ConcernCode:
    """One human-rights concern: its label, the instrument it rests on, and where the code was taken from."""

    code: str
    label: str
    instrument: str
    basis: str


@dataclass(frozen=True, slots=True)
class ListedItem:
    """A control-list entry of human-rights relevance. The title is a paraphrase, not law."""

    systems: tuple[str, ...]
    code: str
    title: str
    regime_or_reason: str
    relevance: str


CONCERNS: Mapping[str, ConcernCode] = {
    row["code"]: ConcernCode(**row) for row in _rows("human_rights_concerns.csv")
}

CONTROLLED_ITEMS: tuple[ListedItem, ...] = tuple(
    ListedItem(
        tuple(row["system"].split("/")),
        row["code"],
        row["title_paraphrased"],
        row["regime_or_reason"],
        row["human_rights_relevance"],
    )
    for row in _rows("controlled_items_hr.csv")
)

Caveat = Literal["ORCON", "REGIME:WA", "REGIME:NSG", "REGIME:AG", "REGIME:MTCR", "EU-DUES", "COMMERCIAL-IN-CONFIDENCE", "PERSONAL-DATA"]  # fmt: skip
"""Handling instruction beside the TLP label (3.3)."""

Reason = Literal[
    "HUMAN_RIGHTS", "INTERNAL_REPRESSION", "DIVERSION", "END_USER_CONCERN", "END_USE_CONCERN", "INSUFFICIENT_INFORMATION",
    "ASSURANCE_REFUSED", "ASSURANCE_BREACH", "EMBARGO", "SANCTIONS", "REGIME_OBLIGATION", "NATIONAL_SECURITY", "OTHER",
]  # fmt: skip
"""Why a licence was denied (3.7)."""

Action = Literal[
    "refused", "annulled", "suspended", "substantially_limited", "revoked", "intent_to_deny", "catch_all",
    "transit_prohibited",
]  # fmt: skip
"""What the authority did (2.5)."""

Undertaking = Literal[
    "no_wmd", "no_military_embargoed", "no_human_rights_violation", "no_reexport_without_consent",
    "no_transfer_to_third_party", "install_at_stated_site", "permit_post_shipment_verification", "report_misuse",
    "delete_or_return",
]  # fmt: skip
"""What an end-user undertakes in an assurance (3.6)."""

VictimGroup = Literal[
    "journalists", "defenders", "lawyers", "opposition", "minorities", "women", "lgbti", "migrants", "children",
    "general_population",
]  # fmt: skip
"""Who is harmed (3.4)."""

Severity = Literal["low", "moderate", "high", "severe"]
"""How grave a concern is: scale, scope and irremediability taken together (UNGP 14)."""

TechnologyClass = Literal[
    "intrusion_software", "interception", "facial_recognition", "emotion_recognition", "gait_or_voice", "social_scoring",
    "predictive_policing", "dna_analysis", "location_tracking", "internet_filtering", "device_forensics",
    "drone_surveillance", "ai_content_analysis", "other",
]  # fmt: skip
"""What kind of technology a threat or a proposal is about (6.2)."""

Collaboration = Literal["WA", "NSG", "AG", "MTCR", "EU", "UN", "OSCE", "other"]
"""Regime or initiative to work with (commitment A6)."""

Relation = Literal[
    "amends", "withdraws", "acknowledges", "answers", "responds_to", "undercuts", "evidence", "related"
]
"""How a notice refers to another (6.0)."""

HeldInformation = Literal[
    "end_user_statement", "end_use_description", "technical_specification", "contract", "site_details",
    "ownership_information", "due_diligence_report", "assurances",
]  # fmt: skip
"""What the asking State holds on an application (6.4; commitment C4, "sufficient relevant information")."""

CAVEATS: Final[tuple[Caveat, ...]] = get_args(Caveat)
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
TECHNOLOGY_CLASSES: Final[tuple[TechnologyClass, ...]] = get_args(TechnologyClass)
