"""What EE, NL and JP say in the demo. Every party, product, place of use and finding here is invented.

No real country is the scene of an invented misuse.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.domain.states import STATES

Main = dict[str, Any]

FICTION: Final = "Fictional, posted by the Verbale demo."
_CONFIDENCE: Final = {"level": "moderate", "basis": "government"}


def _main(
    kind: str,
    issuer: str,
    title: str,
    summary: str,
    body: Main,
    *,
    tlp: str = "TLP:GREEN",
    audience: list[str] | str = "ALL",
) -> Main:
    return {
        "schema_version": "1.0.0",
        "type": kind,
        "issuer": issuer,
        "tlp": tlp,
        "audience": audience,
        "caveats": [],
        "language": "en",
        "title": title,
        "summary": f"{summary} {FICTION}",
        "contact": {
            "role": "Demo contact point",
            "office": f"Demo contact point of {STATES[issuer].name}",
            "email": f"contact@{issuer.lower()}.verbale.example",
        },
        "body": body,
    }


def _day(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def _party(name: str, role: str) -> Main:
    return {"ftm": {"schema": "Company", "properties": {"name": [name]}}, "role": role}


def lanternfish_threat() -> Main:
    """EE: an implant for telephones; amended later."""
    return _main(
        "technology_threat",
        "EE",
        "Lanternfish: zero-click implant offered to police forces",
        "An implant for telephones is offered without any check of the judicial authorisation.",
        {
            "technology": {
                "name": "Lanternfish",
                "description": "Implant for telephones, installed without an action of the user.",
                "class": "intrusion_software",
            },
            "threat": "The seller advertises use against reporters and asks for no judicial authorisation.",
            "concerns": [
                {"code": "HR-SURV-TARGET", "severity": "high", "victims": ["journalists", "defenders"]}
            ],
            "maturity": "commercial",
            "confidence": _CONFIDENCE,
            "codes": [{"system": "EU", "edition": "2025/2003", "code": "4D004"}],
            "suppliers": [_party("Lanternfish Labs GmbH", "supplier")],
            "first_observed": _day(-60),
            "suggested_action": "Examine applications for 4A005 and 4D004 with care.",
        },
    )


def lanternfish_amendment(notice_id: str, leaf_hash: str) -> Main:
    """EE: the implant is in use."""
    return _main(
        "amendment",
        "EE",
        "Lanternfish is in use",
        "The implant was found on telephones of two reporters.",
        {
            "amends": {"id": notice_id, "hash": leaf_hash},
            "change": {
                "merge_patch": {
                    "title": "Lanternfish: zero-click implant in use against reporters",
                    "body": {"maturity": "deployed"},
                }
            },
            "reason": "new_information",
        },
    )


def lanternfish_acknowledgement(notice_id: str, leaf_hash: str) -> Main:
    """NL: licensing was alerted."""
    return _main(
        "acknowledgement",
        "NL",
        "Lanternfish: licensing alerted",
        "Applications for intrusion software are examined with this notice at hand.",
        {
            "notice": {"id": notice_id, "hash": leaf_hash},
            "state": "actioned",
            "measures": [{"kind": "licensing_alert", "date": _day(0)}],
        },
    )


def practice(issuer: str) -> Main:
    """A public practice."""
    return _main(
        "best_practice",
        issuer,
        "Ask for the judicial authorisation",
        "What a licensing officer asks for before software for interception is exported.",
        {
            "topic": "cyber_surveillance",
            "practice": "Ask for the law and the authorisation under which the item will be used, and who supervises its use.",
            "audience_kind": "government",
            "legal_effect": "guidance",
        },
        tlp="TLP:CLEAR",
    )


def emotion_proposal() -> Main:
    """JP: a technology that should be controlled."""
    return _main(
        "technology_proposal",
        "JP",
        "Control software that reads emotion from faces in a crowd",
        "No list controls it today.",
        {
            "technology": {
                "name": "Emotion scoring",
                "description": "Software that infers emotion from faces in a crowd.",
                "class": "emotion_recognition",
            },
            "proposed_control": {
                "text": "Software that infers emotion from faces of persons who did not consent, in real time.",
                "forum": "WA",
            },
            "rationale": "Selects demonstrators for arrest without any act of theirs.",
            "concerns": [{"code": "HR-DISSENT"}],
            "comment_deadline": _day(90),
        },
    )


def paper_crane_threat() -> Main:
    """JP: issued in error; withdrawn later."""
    return _main(
        "technology_threat",
        "JP",
        "Paper Crane: gait recognition at a distance",
        "Cameras that recognise persons by the way they walk.",
        {
            "technology": {
                "name": "Paper Crane",
                "description": "Recognition of persons by their gait at 200 metres.",
                "class": "gait_or_voice",
            },
            "threat": "Could identify persons who cover their face.",
            "concerns": [{"code": "HR-BIOMETRIC", "severity": "moderate"}],
            "maturity": "prototype",
            "confidence": {"level": "low", "basis": "open_source"},
            "uncontrolled": True,
            "suppliers": [_party("Paper Crane Optics KK", "supplier")],
        },
    )


def paper_crane_withdrawal(notice_id: str, leaf_hash: str) -> Main:
    """JP: the product does not exist."""
    return _main(
        "withdrawal",
        "JP",
        "Paper Crane: withdrawn",
        "The source retracted its report.",
        {
            "withdraws": {"id": notice_id, "hash": leaf_hash},
            "kind": "issued_in_error",
            "reason": "The source retracted its report: there is no such product.",
            "effective_on": _day(0),
        },
    )


def withdrawal(issuer: str, notice_id: str, leaf_hash: str) -> Main:
    """A withdrawal of a public notice."""
    return _main(
        "withdrawal",
        issuer,
        "Withdrawn",
        "Issued in error.",
        {
            "withdraws": {"id": notice_id, "hash": leaf_hash},
            "kind": "issued_in_error",
            "reason": "Issued in error.",
            "effective_on": _day(0),
        },
        tlp="TLP:CLEAR",
    )


def consultation() -> Main:
    """EE asks NL and JP, and nobody else, before it decides on a licence."""
    return _main(
        "consultation_request",
        "EE",
        "Consultation: interception system for Freedonia Telecom",
        "A licence application is before us; we ask before we decide.",
        {
            "consulted": ["NL", "JP"],
            "kind": "human_rights_concern",
            "parties": [_party("Freedonia Telecom", "end_user")],
            "items": [
                {
                    "description": "Interception system for a telephone network",
                    "codes": [{"system": "EU", "edition": "2025/2003", "code": "5A001.f"}],
                }
            ],
            "destination": "AQ",  # Antarctica: nobody's licence goes there
            "question": "Do you know of misuse of such systems by this operator?",
            "due_by": _day(14),
            "information_available": ["end_user_statement", "contract"],
        },
        tlp="TLP:RED",
        audience=["NL", "JP"],
    )


def saffron_threat() -> Main:
    """EE: what a member system in JP subscribed to."""
    return _main(
        "technology_threat",
        "EE",
        "Saffron Net: filter that reports readers",
        "A filter for national networks that reports who asked for a blocked page.",
        {
            "technology": {
                "name": "Saffron Net",
                "description": "Deep inspection of traffic with a list of readers as its product.",
                "class": "internet_filtering",
            },
            "threat": "Persons were questioned over pages they read.",
            "concerns": [{"code": "HR-CENSOR", "severity": "high"}],
            "maturity": "deployed",
            "confidence": _CONFIDENCE,
            "codes": [{"system": "EU", "edition": "2025/2003", "code": "5A001.j"}],
            "suppliers": [_party("Saffron Net Holdings Ltd", "supplier")],
        },
    )
