"""The schemas of notices, published as JSON Schema (draft 2020-12) for other implementations.

They are generated from the models that this node applies, so they say the same, except for what JSON Schema cannot say:
rules that join members, the numbering of control codes, and that every character can be seen. `docs/schemas/` holds the
generated files; `python -m app.domain.notices docs/schemas` writes them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from app.domain.notices.envelope import KIND_OF_TYPE, MODELS, SCHEMA_VERSIONS

if TYPE_CHECKING:
    from pydantic_core import core_schema

BASE_ID = "https://verbale.example/schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generate(GenerateJsonSchema):
    """Without the nulls: an absent member is left out, never null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        inner = super().default_schema(schema)
        inner.pop("default", None)  # an absent member means nothing; it is not another spelling of a value
        return inner


def json_schemas() -> dict[str, dict[str, Any]]:
    """File stem (`denied_end_user-1.0.0`) -> schema of the whole main part, for every type and known version."""
    schemas = {}
    for notice_type, versions in SCHEMA_VERSIONS.items():
        for version in versions:
            schemas[f"{notice_type}-{version}"] = _schema(notice_type, version)
    return schemas


def _schema(notice_type: str, version: str) -> dict[str, Any]:
    major, minor, _ = version.split(".")
    schema = MODELS[notice_type, int(major)].model_json_schema(schema_generator=_Generate)
    _drop_titles(schema)
    members = schema["properties"]
    members["type"] = {"const": notice_type}
    members["schema_version"] = {"type": "string", "pattern": rf"^{major}\.[0-{minor}]\.(0|[1-9][0-9]*)$"}
    return {
        "$schema": DIALECT,
        "$id": f"{BASE_ID}/{notice_type}/{version}",
        "title": f"{notice_type} {version}",
        "$comment": f"Carried by a statement of kind {KIND_OF_TYPE[notice_type]}.",
    } | {name: value for name, value in schema.items() if name != "title"}


def _drop_titles(schema: Any) -> None:  # noqa: ANN401 - any node of a JSON Schema
    """The titles that pydantic writes repeat the members' names. A member that is itself called title is an object, not a text."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for value in schema.values():
            _drop_titles(value)
    elif isinstance(schema, list):
        for value in schema:
            _drop_titles(value)


def render() -> dict[str, str]:
    """File name -> the exact text of the published file."""
    return {
        f"{stem}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for stem, schema in json_schemas().items()
    }
