"""Notices: what a State says under the Code of Conduct, as versioned schemas.

`parse_main` reads the bytes of a main part and gives a `Notice`; `amended` tells what an amendment makes of one;
`json_schemas` publishes the schemas. The one place in the domain that uses pydantic.
"""

from app.domain.errors import InvalidNotice, UnknownNoticeType, UnknownSchemaVersion
from app.domain.notices.amend import InapplicableAmendment, amended, apply_amendment, merge_patch
from app.domain.notices.envelope import KIND_OF_TYPE, MODELS, NOTICE_TYPES, SCHEMA_VERSIONS
from app.domain.notices.json_schema import json_schemas
from app.domain.notices.notice import Notice, parse_main, validate_main

__all__ = [
    "KIND_OF_TYPE",
    "MODELS",
    "NOTICE_TYPES",
    "SCHEMA_VERSIONS",
    "InapplicableAmendment",
    "InvalidNotice",
    "Notice",
    "UnknownNoticeType",
    "UnknownSchemaVersion",
    "amended",
    "apply_amendment",
    "json_schemas",
    "merge_patch",
    "parse_main",
    "validate_main",
]
