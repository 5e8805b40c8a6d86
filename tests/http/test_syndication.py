"""`/feed.atom` and `/feed.json`: who is shown what, in what order and form, and when nothing has changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import delete, select, update

from app.domain.handling import Tlp
from app.models import EventRow, NoticeRow
from app.queries import newest
from app.schemas.syndication import harmless
from tests.http.edge_node import NOW_MS, URL, Client, EdgeNode, put, token

ATOM = {"a": "http://www.w3.org/2005/Atom"}


def tell(node: EdgeNode, id_: str, event_type: str = "notice.issued", at: int = NOW_MS - 10_000) -> str:
    """An event about a notice, recorded then, as the fold writes it beside the notice's row."""
    with node.db.write() as session:
        notice = session.scalars(select(NoticeRow).where(NoticeRow.id == id_)).one()
        notice.changed_at = at
        session.add(
            EventRow(
                seq=node.db.next_values(session, "events", 1), type=event_type, log_id=notice.log_id, idx=notice.current_idx,
                root_idx=notice.idx, at=at, live=True,
            )
        )  # fmt: skip
    return id_


def change(node: EdgeNode, id_: str, **values: Any) -> None:
    with node.db.write() as session:
        session.execute(update(NoticeRow).where(NoticeRow.id == id_).values(**values))


def items(client: Client, query: str = "", **options: Any) -> list[dict[str, Any]]:
    """Both forms, which must say the same; the items of the JSON feed."""
    answer = client.get(f"/feed.json{query}", **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/feed+json"
    feed = answer.json()
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert feed["feed_url"] == f"{URL}/feed.json{query}"
    entries = atom(client, query, **options).findall("a:entry", ATOM)
    assert [e.findtext("a:id", None, ATOM) for e in entries] == [i["id"] for i in feed["items"]]
    assert [e.findtext("a:title", None, ATOM) for e in entries] == [i["title"] for i in feed["items"]]
    assert [e.findtext("a:updated", None, ATOM) for e in entries] == [
        i["date_modified"] for i in feed["items"]
    ]
    return list(feed["items"])


def atom(client: Client, query: str = "", **options: Any) -> ET.Element:
    answer = client.get(f"/feed.atom{query}", **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/atom+xml")
    return ET.fromstring(answer.content)  # noqa: S314 - what this node made


def names(found: list[dict[str, Any]]) -> list[str]:
    return [item["id"].removeprefix("urn:uuid:") for item in found]


def test_the_newest_change_comes_first_and_a_notice_once(client: Client, node: EdgeNode) -> None:
    first, second, third = (tell(node, put(node), at=NOW_MS - 60_000 + n) for n in range(3))
    tell(node, first, "notice.amended", NOW_MS - 30_000)
    change(node, first, version=2)
    found = items(client)
    assert names(found) == [first, third, second]
    assert [i["_verbale"]["version"] for i in found] == [2, 1, 1]
    times = [datetime.fromisoformat(i["date_modified"]) for i in found]
    assert times == sorted(times, reverse=True)
    assert atom(client).findtext("a:updated", None, ATOM) == found[0]["date_modified"]


def test_a_reader_is_shown_what_it_may_read_and_nothing_of_the_rest(client: Client, node: EdgeNode) -> None:
    clear = tell(node, put(node, tlp=Tlp.CLEAR, title="For everybody"))
    amber = tell(node, put(node, tlp=Tlp.AMBER, title="For few"))
    others = tell(node, put(node, tlp=Tlp.CLEAR, audience="FR NL", title="For others"))
    assert names(items(client)) == [clear]
    assert names(items(client, headers=token(node, Tlp.GREEN))) == [clear]
    assert names(items(client, headers=token(node, Tlp.AMBER))) == [amber, clear]
    for form in ("atom", "json"):
        text = client.get(f"/feed.{form}").text
        assert amber not in text
        assert others not in text
        assert "few" not in text


def test_a_credential_that_does_not_hold_is_refused(client: Client, node: EdgeNode) -> None:
    for form in ("atom", "json"):
        assert client.get(f"/feed.{form}", headers={"Authorization": "Bearer vbl_no"}).status_code == 401
        assert client.get(f"/feed.{form}", headers=token(node, scopes=("screen",))).status_code == 403


def test_what_stands_above_the_gate_now_is_gone_though_it_was_shown(client: Client, node: EdgeNode) -> None:
    id_ = tell(node, put(node))
    assert names(items(client)) == [id_]
    change(node, id_, tlp_rank=int(Tlp.RED))
    tell(node, id_, "notice.amended")
    assert names(items(client)) == []


@pytest.mark.parametrize("state", ["erased", "invalid", "recalled", "none", "moved"])
def test_a_notice_without_content_is_not_shown(client: Client, node: EdgeNode, state: str) -> None:
    tell(node, put(node, content_state=state))
    assert items(client) == []


def test_a_withdrawal_is_shown_as_such(client: Client, node: EdgeNode) -> None:
    id_ = tell(node, put(node, title="A denial"))
    change(node, id_, status="withdrawn")
    tell(node, id_, "notice.withdrawn")
    (item,) = items(client)
    assert item["title"] == "A denial (withdrawn)"
    assert item["_verbale"]["status"] == "withdrawn"
    assert "withdrawn" in item["tags"]


def test_only_what_was_issued_amended_or_withdrawn_is_told(client: Client, node: EdgeNode) -> None:
    tell(node, put(node), "notice.confirmed")
    tell(node, put(node), "acknowledgement.received")
    assert items(client) == []


def test_filters_narrow_and_an_unknown_parameter_is_refused(client: Client, node: EdgeNode) -> None:
    us, nl = (tell(node, put(node, issuer=issuer)) for issuer in ("US", "NL"))
    assert names(items(client, "?issuer=NL")) == [nl]
    assert names(items(client, "?issuer=NL&issuer=US")) == [nl, us]
    for query in ("?isuer=NL", "?cursor=x", "?limit=0", "?limit=201", "?limit=x", "?limit=1&limit=2"):
        assert client.get(f"/feed.atom{query}").status_code == 400, query
        assert client.get(f"/feed.json{query}").status_code == 400, query


def test_a_limit_keeps_the_newest(client: Client, node: EdgeNode) -> None:
    told = [tell(node, put(node), at=NOW_MS - 60_000 + n) for n in range(60)]
    assert names(items(client, "?limit=3")) == told[:-4:-1]
    assert len(items(client)) == 50


def test_many_events_that_are_for_others_do_not_hide_what_is_for_the_caller(
    client: Client, node: EdgeNode
) -> None:
    id_ = tell(node, put(node))
    hidden = put(node, tlp=Tlp.RED)
    tell(node, hidden)
    with node.db.write() as session:
        row = session.scalars(select(EventRow).order_by(EventRow.seq.desc()).limit(1)).one()
        first = node.db.next_values(session, "events", 1_200)
        rows = [(first + n, row.type, row.log_id, row.idx, row.root_idx, row.at, True) for n in range(1_200)]
        columns = ("seq", "type", "log_id", "idx", "root_idx", "at", "live")
        node.db.bulk_insert(session, EventRow.__table__, columns, rows)
    assert names(items(client)) == [id_]
    with node.db.write() as session:  # beyond what one look takes, it is over
        session.execute(update(EventRow).where(EventRow.seq > 1).values(seq=EventRow.seq + newest.SCANNED))
    assert items(client) == []


def test_nothing_at_all_is_a_valid_feed(client: Client, node: EdgeNode) -> None:
    assert items(client) == []
    assert atom(client).findtext("a:updated", None, ATOM) == "1970-01-01T00:00:00Z"
    with node.db.write() as session:
        session.execute(delete(EventRow))


def test_atom_has_what_the_standard_asks_for(client: Client, node: EdgeNode) -> None:
    id_ = tell(node, put(node, title="<b>Tom & Jerry</b>"))
    feed = atom(client, "?issuer=US")
    assert feed.tag == "{http://www.w3.org/2005/Atom}feed"
    assert feed.findtext("a:id", None, ATOM) == f"{URL}/feed.atom"
    link = feed.find("a:link", ATOM)
    assert link is not None
    assert (link.get("rel"), link.get("href")) == ("self", f"{URL}/feed.atom?issuer=US")
    entry = feed.find("a:entry", ATOM)
    assert entry is not None
    for name in ("id", "title", "updated", "published", "summary", "rights"):
        assert len(entry.findall(f"a:{name}", ATOM)) == 1, name
    assert entry.findtext("a:title", None, ATOM) == "<b>Tom & Jerry</b>"
    assert entry.findtext("a:author/a:name", None, ATOM) == "United States"
    assert entry.findtext("a:rights", None, ATOM) == "TLP:CLEAR"
    alternate = entry.find("a:link", ATOM)
    assert alternate is not None
    assert (alternate.get("rel"), alternate.get("href")) == ("alternate", f"{URL}/v1/notices/{id_}")


def test_characters_that_do_not_show_are_made_harmless(client: Client, node: EdgeNode) -> None:
    id_ = tell(node, put(node))
    change(node, id_, title="A\x01B\u202eC\ufffeD\nE\u200bF")
    (item,) = items(client)
    assert item["title"] == "A\ufffdB\ufffdC\ufffdD E\ufffdF"


@pytest.mark.parametrize(
    "code", [*range(0x20), 0x7F, 0x85, 0xD800, 0x2028, 0x202E, 0xFFFE, 0xFFFF, 0xE0001, 0x1FFFE]
)
def test_whatever_stands_in_a_text_the_document_can_be_read(code: int) -> None:
    element = ET.Element("t")
    element.text = harmless(f"a{chr(code)}b")
    text = ET.fromstring(ET.tostring(element, encoding="utf-8")).text  # noqa: S314 - made a line above
    assert text == ("a b" if code in (9, 10) else "a\ufffdb")


def test_a_copy_that_is_still_right_is_not_sent_again(client: Client, node: EdgeNode) -> None:
    tell(node, put(node))
    for form in ("atom", "json"):
        first = client.get(f"/feed.{form}")
        tag, date = first.headers["etag"], first.headers["last-modified"]
        for given in (
            {"If-None-Match": tag},
            {"If-None-Match": f'"x", W/{tag}'},
            {"If-Modified-Since": date},
        ):
            again = client.get(f"/feed.{form}", headers=given)
            assert (again.status_code, again.content) == (304, b""), given
            assert again.headers["etag"] == tag
        # The tag decides where there is one; a date that is none says nothing.
        for given in (
            {"If-None-Match": '"x"', "If-Modified-Since": date},
            {"If-Modified-Since": "yesterday"},
            {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        ):
            assert client.get(f"/feed.{form}", headers=given).status_code == 200, given


def test_after_a_change_neither_tag_nor_date_holds(client: Client, node: EdgeNode) -> None:
    tell(node, put(node))
    before = client.get("/feed.json").headers
    tell(node, put(node), at=NOW_MS - 5_000)
    for given in ({"If-None-Match": before["etag"]}, {"If-Modified-Since": before["last-modified"]}):
        assert client.get("/feed.json", headers=given).status_code == 200


def test_two_callers_never_share_a_copy(client: Client, node: EdgeNode) -> None:
    tell(node, put(node, tlp=Tlp.AMBER))
    tell(node, put(node))
    public = client.get("/feed.json")
    secret = client.get("/feed.json", headers=token(node) | {"If-None-Match": public.headers["etag"]})
    assert secret.status_code == 200
    for answer in (public, secret):
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["vary"] == "Authorization"


def test_a_change_of_this_very_second_has_no_date_yet(client: Client, node: EdgeNode) -> None:
    tell(node, put(node), at=NOW_MS - 100)
    answer = client.get("/feed.json")
    assert "last-modified" not in answer.headers
    assert "etag" in answer.headers
