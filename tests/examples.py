"""Main parts that are valid, one builder per notice type. Every party is fictional.

Each builder returns a fresh dict; keyword arguments replace members of the envelope, and `body` members are replaced by
`body={...}` merged over the example's body (a value of `...` removes the member).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NOTICE_ID = "01937f3a-5c00-7abc-8def-0123456789ab"
LEAF_HASH = "A" * 43  # thirty-two zero bytes
REF = {"id": NOTICE_ID, "hash": LEAF_HASH}

Main = dict[str, Any]


def _merge(example: Main, overrides: Main) -> Main:
    merged = example | overrides
    return {name: value for name, value in merged.items() if value is not ...}


def envelope(notice_type: str, body: Main, /, **overrides: Any) -> Main:
    """A main part with the envelope filled in and `overrides` laid over it."""
    example: Main = {
        "schema_version": "1.0.0",
        "type": notice_type,
        "issuer": "EE",
        "tlp": "TLP:GREEN",
        "audience": "ALL",
        "caveats": [],
        "language": "en",
        "title": f"Example of {notice_type.replace('_', ' ')}",
        "summary": "A fictional notice that shows the shape of its type.",
        "contact": {
            "role": "point_of_contact",
            "office": "Strategic Goods Commission",
            "email": "contact@ee.example",
        },
    }
    example["body"] = _merge(body, overrides.pop("body", {}))
    return _merge(example, overrides)


def party(name: str = "Aurelian Sky Systems LLC", role: str = "end_user", **properties: list[str]) -> Main:
    """A fictional company."""
    return {
        "ftm": {"schema": "Company", "properties": {"name": [name], "country": ["ZM"]} | properties},
        "role": role,
    }


def item(code: str = "5A001.j", system: str = "EU") -> Main:
    """One listed item."""
    return {
        "description": "IP network communications surveillance system",
        "codes": [{"system": system, "edition": "2025/2003", "code": code}],
        "hs": ["8517.62"],
        "quantity": {"value": "2", "unit": "piece"},
        "value": {"amount": "1250000.00", "currency": "EUR"},
    }


def technology() -> Main:
    """A fictional product."""
    return {
        "name": "Lanternfish",
        "description": "Zero-click implant for telephones.",
        "class": "intrusion_software",
    }


CONCERN: Main = {"code": "HR-SURV-TARGET", "severity": "high", "victims": ["journalists", "defenders"]}
CONFIDENCE: Main = {"level": "moderate", "basis": "government"}


def denied_end_user(**overrides: Any) -> Main:
    """A licence refused on human-rights grounds; two parties, one with a native name."""
    body = {
        "action": "refused",
        "denied_on": "2026-09-14",
        "legal_basis": ["Regulation (EU) 2021/821, article 5"],
        "parties": [
            {
                **party(
                    alias=["Aurelian Sky", "AS Systems"],
                    address=["12 Copper Road, Lusaka"],
                    registrationNumber=["ZM-000-117"],
                    topics=["export.control"],
                ),
                "native_names": [{"value": "Аурелиан Скай", "script": "Cyrl", "lang": "ru"}],
            },
            party("Blue Heron Trading FZE", "intermediate_consignee", country=["ae"]),
        ],
        "items": [item()],
        "destination": "ZM",
        "reasons": ["HUMAN_RIGHTS", "END_USER_CONCERN"],
        "concerns": [{**CONCERN, "narrative": "Would be used against reporters."}],
        "status": "active",
        "stated_end_use": "Lawful interception at one operator",
        "assessed_end_use": "Monitoring of the political opposition",
    }
    return envelope(
        "denied_end_user",
        body,
        **{"title": "Denied: Aurelian Sky Systems LLC", "national_reference": "EE-2026-0117"} | overrides,
    )


def technology_threat(**overrides: Any) -> Main:
    """An uncontrolled intrusion tool with a supplier and a known user."""
    body = {
        "technology": technology(),
        "threat": "Sold to services without judicial oversight.",
        "concerns": [CONCERN],
        "maturity": "deployed",
        "confidence": CONFIDENCE,
        "codes": [{"system": "WA", "code": "4.D.4"}],
        "suppliers": [party("Lanternfish Labs GmbH", "supplier")],
        "known_users": [party("Ministry of Order of Freedonia", "user")],
        "regions": ["ZM", "XK"],
        "first_observed": "2026-05-02",
        "indicators": ["beacons to lanternfish.example"],
        "suggested_action": "Examine applications for 4D004 with care.",
        "sources": [{"citation": "Fictional Laboratory, report 7", "date": "2026-06-01"}],
    }
    return envelope("technology_threat", body, **{"title": "Lanternfish implant in use"} | overrides)


def technology_proposal(**overrides: Any) -> Main:
    """A proposal to control emotion recognition."""
    body = {
        "technology": {**technology(), "name": "Emotion scoring", "class": "emotion_recognition"},
        "proposed_control": {"text": "Software that infers emotion from faces in crowds", "forum": "WA"},
        "rationale": "Used to select demonstrators for arrest.",
        "concerns": [{"code": "HR-DISSENT"}],
        "comment_deadline": "2027-03-01",
        "existing_codes": [{"system": "US", "code": "3A981"}],
        "foreign_availability": "Two makers outside the regimes.",
    }
    return envelope("technology_proposal", body, **overrides)


def technology_proposal_position(**overrides: Any) -> Main:
    """Support with changes."""
    body = {"proposal": REF, "position": "support_with_changes", "reason": "Narrow the text to crowds."}
    return envelope("technology_proposal_position", body, **overrides)


def consultation_request(**overrides: Any) -> Main:
    """A consultation of one State over its denial, TLP:RED."""
    body = {
        "consulted": ["NL"],
        "kind": "essentially_identical",
        "parties": [party()],
        "items": [item()],
        "destination": "ZM",
        "question": "Do you regard this transaction as essentially identical?",
        "due_by": "2026-12-09",
        "denials": [REF],
        "information_available": ["end_user_statement", "contract"],
    }
    return envelope("consultation_request", body, **{"tlp": "TLP:RED", "audience": ["NL"]} | overrides)


def consultation_response(**overrides: Any) -> Main:
    """An answer to the consultation."""
    body = {
        "request": REF,
        "answer": "essentially_identical",
        "reasons": "Same end-user, same item.",
        "denial_kept": True,
    }
    return envelope(
        "consultation_response", body, **{"issuer": "NL", "tlp": "TLP:RED", "audience": ["EE"]} | overrides
    )


def consultation_outcome(**overrides: Any) -> Main:
    """A grant over a denial, explained."""
    body = {
        "request": REF,
        "decision": "granted",
        "undercut": True,
        "explanation": "Another end-use, verified on site.",
    }
    return envelope("consultation_outcome", body, **{"tlp": "TLP:RED", "audience": ["NL"]} | overrides)


def best_practice(**overrides: Any) -> Main:
    """A public practice."""
    body = {
        "topic": "end_use_checks",
        "practice": "Ask for the judicial authorisation under which the item will be used.",
        "audience_kind": "government",
        "legal_effect": "guidance",
        "url": "https://practice.example/end-use",
    }
    return envelope(
        "best_practice", body, **{"tlp": "TLP:CLEAR", "title": "Ask for the authorisation"} | overrides
    )


def question(**overrides: Any) -> Main:
    """A question to the central contact."""
    body = {
        "to": "central_contact",
        "topic": "procedure",
        "text": "Who may join a plenary?",
        "asked_by": "state",
    }
    return envelope("question", body, **overrides)


def answer(**overrides: Any) -> Main:
    """An answer to a question."""
    body = {"question": REF, "text": "Every Subscribing State.", "status": "answered", "add_to_faq": True}
    return envelope("answer", body, **{"issuer": "NL"} | overrides)


def assurance(**overrides: Any) -> Main:
    """An assurance that was broken."""
    body = {
        "given_by": party(),
        "given_to": "EE",
        "items": [item()],
        "end_use": "Network planning",
        "site": "12 Copper Road, Lusaka",
        "undertakings": ["no_human_rights_violation", "report_misuse"],
        "signed_on": "2025-01-15",
        "status": "breached",
        "verification": [{"date": "2026-02-01", "method": "site visit", "result": "Item not found."}],
        "breach": {"date": "2026-02-01", "description": "Moved to another site.", "confidence": CONFIDENCE},
        "document": "statement",
    }
    attachments = [
        {"part": "statement", "name": "statement.pdf", "media_type": "application/pdf", "size": 48_213}
    ]
    return envelope("assurance", body, **{"attachments": attachments} | overrides)


def acknowledgement(ref_id: str = NOTICE_ID, ref_hash: str = LEAF_HASH, **overrides: Any) -> Main:
    """An acknowledgement of a notice version."""
    body = {
        "notice": {"id": ref_id, "hash": ref_hash},
        "state": "actioned",
        "measures": [{"kind": "licensing_alert", "date": "2026-10-01"}],
    }
    return envelope("acknowledgement", body, **{"issuer": "NL"} | overrides)


def amendment(
    ref_id: str = NOTICE_ID,
    ref_hash: str = LEAF_HASH,
    *,
    replacement: Main | None = None,
    merge_patch: Main | None = None,
    **overrides: Any,
) -> Main:
    """An amendment; without a change it patches the title."""
    if replacement is not None:
        change = {"replacement": replacement}
    else:
        change = {"merge_patch": {"title": "Amended title"} if merge_patch is None else merge_patch}
    body = {"amends": {"id": ref_id, "hash": ref_hash}, "change": change, "reason": "new_information"}
    return envelope("amendment", body, **overrides)


def withdrawal(ref_id: str = NOTICE_ID, ref_hash: str = LEAF_HASH, **overrides: Any) -> Main:
    """A withdrawal of a notice."""
    body = {
        "withdraws": {"id": ref_id, "hash": ref_hash},
        "kind": "issued_in_error",
        "reason": "The party was mistaken for another.",
        "effective_on": "2026-11-01",
    }
    return envelope("withdrawal", body, **overrides)


def undercut(**overrides: Any) -> Main:
    """A licence approved over a denial."""
    body = {
        "denial": REF,
        "approved_on": "2026-10-20",
        "items": [item()],
        "parties": [party()],
        "explanation": "Assurances given and verified.",
    }
    return envelope("undercut", body, **overrides)


def contact_entry(**overrides: Any) -> Main:
    """Estonia's fictional office."""
    body = {
        "state": "EE",
        "office": "Strategic Goods Commission",
        "phone": "+372 000 0000",
        "email": "contact@ee.example",
        "languages": ["et", "en"],
        "hours": "Mon-Fri 09:00-17:00 EET",
        "keys": [{"kid": "EE/cp/1", "alg": "Ed25519", "public": "A" * 43, "not_before": 1_790_000_000}],
    }
    return envelope("contact_entry", body, **{"tlp": "TLP:CLEAR"} | overrides)


def central_contact_term(**overrides: Any) -> Main:
    """A fictional term."""
    body = {"state": "NL", "from": "2026-01-01", "to": "2027-12-31", "confirmed_by": ["EE", "JP", "US"]}
    return envelope("central_contact_term", body, **{"tlp": "TLP:CLEAR"} | overrides)


def membership(**overrides: Any) -> Main:
    """A State that joined."""
    body = {"state": "EE", "joined": "2023-03-30", "node_url": "https://verbale.ee.example"}
    return envelope("membership", body, **{"tlp": "TLP:CLEAR"} | overrides)


def collaboration_opportunity(**overrides: Any) -> Main:
    """A step towards a regime."""
    body = {
        "regime": "WA",
        "topic": "Emotion recognition",
        "proposed_step": "Table a paper at the experts' group.",
    }
    return envelope("collaboration_opportunity", body, **{"collaboration": ["WA"]} | overrides)


def outreach(**overrides: Any) -> Main:
    """A workshop with a State outside the Code."""
    body = {"state": "ZM", "activity": "Licensing workshop", "date": "2026-08-12"}
    return envelope("outreach", body, **overrides)


BUILDERS: dict[str, Callable[..., Main]] = {
    "denied_end_user": denied_end_user,
    "technology_threat": technology_threat,
    "technology_proposal": technology_proposal,
    "technology_proposal_position": technology_proposal_position,
    "consultation_request": consultation_request,
    "consultation_response": consultation_response,
    "consultation_outcome": consultation_outcome,
    "best_practice": best_practice,
    "question": question,
    "answer": answer,
    "assurance": assurance,
    "acknowledgement": acknowledgement,
    "amendment": amendment,
    "withdrawal": withdrawal,
    "undercut": undercut,
    "contact_entry": contact_entry,
    "central_contact_term": central_contact_term,
    "membership": membership,
    "collaboration_opportunity": collaboration_opportunity,
    "outreach": outreach,
}
