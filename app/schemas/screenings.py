"""Wire shapes of `/v1/screenings`, for the documentation: `app.screening.application` reads, `app.screening.answering` writes.

The answer is written without passing through models, as a notice's is; a test reads the example by the code that reads
requests, and holds the example of an answer against a real one, so that both stay true.
"""

from __future__ import annotations

from typing import Any, Final

from app.domain.control_codes import SYSTEMS
from app.domain.party import APPLICATION_ROLES, PROPERTIES, SCHEMATA

_TEXTS: Final[dict[str, Any]] = {
    "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}

_CODE: Final[dict[str, Any]] = {
    "oneOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {
                "system": {"enum": list(SYSTEMS)},
                "edition": {"type": "string"},
                "code": {"type": "string"},
            },
        },
    ],
}

PARTY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "FollowTheMoney's shape. At least one name; a text alone is a party's name.",
    "additionalProperties": False,
    "properties": {
        "schema": {"enum": list(SCHEMATA)},
        "properties": {
            "type": "object",
            "additionalProperties": False,
            "properties": dict.fromkeys(PROPERTIES, _TEXTS),
        },
        "name": _TEXTS,
        "role": {"enum": list(APPLICATION_ROLES)},
        "id": {"type": "string", "maxLength": 200, "description": "the caller's own; echoed"},
        "native_names": {
            "type": "array",
            "items": {"type": "object", "required": ["value"], "properties": {"value": {"type": "string"}}},
        },
    },
}

EXAMPLE_APPLICATION: Final[dict[str, Any]] = {
    "id": "2026/117",
    "parties": {
        "exporter": [{"schema": "Company", "properties": {"name": ["Tulip Networks BV"]}}],
        "end_user": [
            {"schema": "Company", "properties": {"name": ["Meridia Telecom Authority"], "country": ["ZM"]}}
        ],
        "consignee": [{"schema": "Company", "properties": {"name": ["Blue Harbour Freight Ltd"]}}],
    },
    "items": [
        {
            "description": "IP network surveillance system",
            "codes": [{"system": "EU", "code": "5A001.j"}],
            "technical_parameters": [{"name": "throughput", "value": "100", "unit": "Gbit/s"}],
        }
    ],
    "destination": "ZM",
    "stated_end_use": "Network planning",
    "received_on": "2026-11-20",
}

APPLICATION_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "description": "One party (`party`), many (`parties` as a list), or an application (`parties` by role, items, destination).",
    "properties": {
        "party": PARTY_SCHEMA,
        "parties": {
            "oneOf": [
                {"type": "array", "items": PARTY_SCHEMA, "maxItems": 1000},
                {"type": "object", "additionalProperties": {"type": "array", "items": PARTY_SCHEMA}},
            ]
        },
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "description": "As in a notice: docs/schemas.",
                "properties": {
                    "description": {"type": "string"},
                    "codes": {"type": "array", "items": _CODE},
                    "code": _CODE | {"description": "Instead of codes, for one."},
                    "hs": {"type": "array", "items": {"type": "string"}},
                    "technical_parameters": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {key: {"type": "string"} for key in ("name", "value", "unit")},
                        },
                    },
                },
            },
        },
        "destination": {"type": "string", "description": "alpha-2"},
        "stated_end_use": {"type": "string"},
        "reference": {"type": "string", "maxLength": 64, "description": "the own file number, for the draft"},
        "received_on": {"type": "string", "format": "date"},
        "id": {"type": "string", "maxLength": 200, "description": "the caller's own; echoed"},
    },
    "example": EXAMPLE_APPLICATION,
}

EXAMPLE_ANSWER: Final[dict[str, Any]] = {
    "id": "2026/117",
    "screened_at": "2026-11-25T10:00:00Z",
    "complete": True,
    "parties": [
        {
            "pointer": "/parties/end_user/0",
            "id": None,
            "role": "end_user",
            "status": 200,
            "query": {
                "schema": "Company",
                "properties": {"name": ["Meridia Telecom Authority"], "country": ["ZM"]},
            },
            "threshold": 0.7,
            "hits": [],
            "more": False,
            "notes": [],
            "no_hit": {
                "reason": "below-threshold",
                "nearest": 0.41,
                "detail": "The nearest party scores 0.41; a hit has at least 0.7.",
            },
        }
    ],
    "freshness": {
        "complete": True,
        "behind": [],
        "states": {"nl.verbale.example/log/1": "2026-11-25T09:59:58Z"},
    },
    "algorithm": {},
    "undercut": {"depth": "number", "tolerance": 0.1, "findings": [], "limits": []},
    "consult": [],
}

EXAMPLE_LINES: Final = (
    '{"line":1,"id":"2026/117","status":200,"screening":{"complete":true,"parties":[]}}\n'
    '{"line":2,"id":"2026/118","status":422,"problem":{"type":"https://ee.example/problems#invalid-screening"}}\n'
    '{"end":true,"lines":2,"screened":1,"failed":1,"freshness":{"complete":true,"behind":[],"states":{}}}\n'
)
