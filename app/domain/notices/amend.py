"""What an amendment makes of a notice.

An amendment is a whole new signed version. It carries the new document, or a JSON Merge Patch (RFC 7396) of the current
one; either way the result has to be a valid notice of the same type and issuer, handled as the amendment itself is: who
may read the amendment may read exactly what it makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.domain.errors import InvalidNotice, Malformed
from app.domain.notices.bodies import Amendment
from app.domain.notices.notice import Notice, validate_main

if TYPE_CHECKING:
    from app.domain.json import JsonValue

_HANDLING = ("tlp", "audience", "caveats")


class InapplicableAmendment(Malformed):
    """The amendment is well formed and cannot be applied to the version it names, or that version is not at hand."""

    code = "inapplicable-amendment"


def merge_patch(target: JsonValue, patch: JsonValue) -> JsonValue:
    """RFC 7396 section 2. Neither argument is changed; unchanged members are shared with the target."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def amended(previous: dict[str, Any] | None, amendment: Notice) -> Notice:
    """The version that follows `previous` (the current document, None if this node does not hold it).

    Does not check that `previous` is the version the amendment names: the log decides that.

    Raises:
        InapplicableAmendment: a merge patch without the version it patches; a change of type or issuer; handling in the
            change that differs from the amendment's own.
        InvalidNotice: the result breaks its schema. Pointers are into the resulting document.
        UnknownNoticeType, UnknownSchemaVersion: as for any notice.
    """
    body = amendment.body
    if not isinstance(body, Amendment):
        raise InapplicableAmendment(f"A notice of type {amendment.type} amends nothing.")
    result = body.change.replacement
    if result is None:
        if previous is None:
            raise InapplicableAmendment(
                "This amendment is a merge patch and the version it patches is not at hand. Obtain that version first, or "
                "send the full new document as replacement."
            )
        if _addresses_more(previous.get("audience"), amendment):
            raise InapplicableAmendment(
                "This merge patch addresses States that the version it patches did not, and they could not apply it. Send the "
                "full new document as replacement."
            )
        result = _patched(previous, body.change.merge_patch or {}, amendment)
    base = result if previous is None else previous
    if result.get("type") != base.get("type") or result.get("issuer") != amendment.issuer:
        raise InapplicableAmendment(
            "An amendment keeps type and issuer. Withdraw the notice and issue another instead."
        )
    notice = validate_main(result)
    if notice.kind != "issue":
        raise InapplicableAmendment(f"A notice of type {notice.type} cannot be amended.")
    if body.reason == "renewal" and notice.review_due is None:
        raise InvalidNotice([("/review_due", "a renewal says when the next review is due")])
    return notice


def apply_amendment(previous: dict[str, Any] | None, amendment_main: dict[str, Any]) -> dict[str, Any]:
    """The document that `amended` gives, from documents; see there for what is raised."""
    return amended(previous, validate_main(amendment_main)).document


def _addresses_more(before: JsonValue, amendment: Notice) -> bool:
    """Whether the amendment is for a State that the version before was not for."""
    if before == "ALL":
        return False
    now = amendment.handling.audience
    return now == "ALL" or not now <= {*before, amendment.issuer}


def _patched(previous: dict[str, Any], patch: dict[str, Any], amendment: Notice) -> dict[str, Any]:
    envelope = {name: amendment.document[name] for name in _HANDLING if name in amendment.document}
    for name in _HANDLING:
        if name in patch and patch[name] != envelope.get(name):
            raise InapplicableAmendment(
                f"The patch sets {name} to another value than the amendment itself has. The new version is handled as the "
                "amendment is: set it there and leave it out of the patch."
            )
    merged: dict[str, Any] = merge_patch(previous, patch)
    for name in _HANDLING:
        merged.pop(name, None)
    return merged | envelope
