"""Notices for feed readers: Atom (RFC 4287) and JSON Feed 1.1 (https://www.jsonfeed.org/version/1.1/).

Guarantees one id for a notice in both, the same for its whole life and whoever asks; that what readers show of it is what
the API says of it: its title, its State, its label; and that no character of a text can break the form or be taken for
something else: controls, bidirectional marks and the like become U+FFFD. The content itself is behind the link, where
reading it stays audited.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import orjson

from app.domain.handling import Tlp
from app.domain.states import STATES
from app.queries.notices import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.queries.notices import NoticeView

ATOM_TYPE: Final = "application/atom+xml"
JSON_TYPE: Final = "application/feed+json"

_ATOM: Final = "http://www.w3.org/2005/Atom"
_JSON_VERSION: Final = "https://jsonfeed.org/version/1.1"
_TITLE: Final = "Verbale: notices"
_EPOCH: Final = "1970-01-01T00:00:00Z"  # of a feed in which nothing is: Atom asks for a time


def harmless(text: str) -> str:
    """A text in which every character shows, and may stand in XML; line ends become blanks."""
    return "".join(
        " " if c in "\n\t" else "\ufffd" if unicodedata.category(c) in _HIDDEN or c in "\ufffe\uffff" else c
        for c in text
    )


_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def atom(entries: Sequence[tuple[int, NoticeView]], public_url: str, query: str) -> bytes:
    """An Atom document.

    Args:
        entries: when this node recorded the newest version (unix ms) and the notice, newest first.
        public_url: base of the links, without a trailing slash.
        query: the query string with which it was asked for, for the link to itself.
    """
    feed = ET.Element("feed", {"xmlns": _ATOM})
    _text(feed, "id", f"{public_url}/feed.atom")
    _text(feed, "title", _TITLE)
    _text(feed, "updated", rfc3339(entries[0][0]) if entries else _EPOCH)
    ET.SubElement(feed, "link", {"rel": "self", "type": ATOM_TYPE, "href": _own(public_url, "atom", query)})
    _text(feed, "generator", "Verbale")
    for changed_at, notice in entries:
        entry = ET.SubElement(feed, "entry")
        _text(entry, "id", _id(notice))
        _text(entry, "title", _title(notice))
        _text(entry, "updated", rfc3339(changed_at))
        _text(entry, "published", rfc3339(notice.received_at))
        _text(ET.SubElement(entry, "author"), "name", _state(notice))
        ET.SubElement(
            entry, "link", {"rel": "alternate", "type": "application/json", "href": _url(notice, public_url)}
        )
        for tag in _tags(notice):
            ET.SubElement(entry, "category", {"term": tag})
        _text(entry, "summary", _summary(notice))
        _text(entry, "rights", _label(notice))
    document: bytes = ET.tostring(feed, encoding="utf-8")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + document


def json_feed(entries: Sequence[tuple[int, NoticeView]], public_url: str, query: str) -> bytes:
    """A JSON Feed; see `atom`."""
    return orjson.dumps(
        {
            "version": _JSON_VERSION,
            "title": _TITLE,
            "home_page_url": f"{public_url}/",
            "feed_url": _own(public_url, "json", query),
            "items": [
                {
                    "id": _id(notice),
                    "url": _url(notice, public_url),
                    "title": harmless(_title(notice)),
                    "content_text": harmless(_summary(notice)),
                    "date_published": rfc3339(notice.received_at),
                    "date_modified": rfc3339(changed_at),
                    "authors": [{"name": _state(notice)}],
                    "tags": _tags(notice),
                    "_verbale": {
                        "id": notice.id,
                        "version": notice.version,
                        "issuer": notice.issuer,
                        "type": notice.type,
                        "status": notice.status,
                        "tlp": _label(notice),
                    },
                }
                for changed_at, notice in entries
            ],
        }
    )


def _text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = harmless(text)


def _own(public_url: str, form: str, query: str) -> str:
    return f"{public_url}/feed.{form}" + (f"?{query}" if query else "")


def _id(notice: NoticeView) -> str:
    return f"urn:uuid:{notice.id}"


def _url(notice: NoticeView, public_url: str) -> str:
    return f"{public_url}/v1/notices/{notice.id}"


def _title(notice: NoticeView) -> str:
    title = notice.title or (notice.type or "notice").replace("_", " ")
    return title if notice.status == "active" else f"{title} ({notice.status})"


def _state(notice: NoticeView) -> str:
    state = STATES.get(notice.issuer)
    return notice.issuer if state is None else state.name


def _label(notice: NoticeView) -> str:
    """Nothing is shown whose label is not known: see `app.gate`."""
    return Tlp(notice.tlp_rank).label


def _tags(notice: NoticeView) -> list[str]:
    return [tag for tag in (notice.type, notice.status, notice.issuer, _label(notice)) if tag]


def _summary(notice: NoticeView) -> str:
    kind = (notice.type or "notice").replace("_", " ")
    return f"{kind} of {_state(notice)}, version {notice.version}, {notice.status}, {_label(notice)}"
