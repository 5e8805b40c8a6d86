"""The pouch from packing to unpacking: what arrives, what is proven, and what a carrier can do about it."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.demo.found import Member, found
from app.domain.errors import VerbaleError
from app.domain.statement import hash_leaf
from app.pouch.archive import MAGIC, PouchDamaged, PouchExists, PouchMalformed, opened
from app.pouch.inspect import PouchRefused, inspect
from app.pouch.manifest import log_prefix, read_manifest
from app.pouch.pack import NothingToCarry, Packed, pack
from app.pouch.unpack import Unpacked, unpack
from app.replication.remote import LATE_AT_ONCE
from app.replication.witness import WitnessAhead
from app.setup import begin_log
from app.tlog.tiles import BundlePath, TilePath, decode_bundle, encode_bundle
from tests.pouch.conftest import State, Three, clock, copied

SECRET = "Falcon Grey Logistics"
PUBLIC: dict[str, Any] = {"tlp": "TLP:CLEAR", "audience": "ALL"}


def packed(by: State, to: str, path: Path, **options: object) -> Packed:
    node = by.opened()
    try:
        return pack(
            node.db, path, by=by.code, to=to, roster=node.roster(),
            roster_files=node.roster_client.repository, now=clock() // 1000, **options,  # type: ignore[arg-type]
        )  # fmt: skip
    finally:
        node.stop()


def taken(by: State, path: Path) -> Unpacked:
    with opened(path) as pouch:
        return unpack(by.settings, pouch, clock=clock)


def titles(of: State) -> list[str]:
    from app.gate import operator
    from app.queries.filters import NoticeFilter
    from app.queries.notices import find

    with of.database() as db, db.read() as session:
        found = find(session, operator(of.code), NoticeFilter(), limit=200, cursor=None, now_ms=clock())
    return sorted(item.title or "" for item in found.items)


def test_a_state_without_a_wire_gets_all_that_is_for_it_and_gives_receipts_back(
    three_on_both: Three, tmp_path: Path
) -> None:
    ee, nl = three_on_both.ee, three_on_both.nl
    ee.post([f"Public {n}" for n in range(3)], **PUBLIC)
    ee.post([SECRET], tlp="TLP:RED", audience=["EE", "NL"])
    ee.post(["For the US"], tlp="TLP:RED", audience=["EE", "US"])

    there = tmp_path / "there.pouch"
    made = packed(ee, "NL", there)
    carried = {c.origin: c for c in made.manifest.logs}[ee.origin]
    assert (carried.start, carried.end, carried.public, carried.sealed) == (0, 5, 3, 1)
    assert SECRET.encode() not in unzipped(there)

    with opened(there) as pouch:
        proven = inspect(pouch, three_on_both.federation.root.read_bytes())
    (log,) = [one for one in proven.logs if one.carried.origin == ee.origin]
    assert (log.open_bodies, log.sealed_bodies, log.leaves) == (3, 1, 5)

    result = taken(nl, there)
    assert [(one.origin, one.before, one.after, one.bodies, one.fault) for one in result.logs] == [
        (ee.origin, 0, 5, 4, None)
    ]
    assert nl.sizes()[ee.origin] == (5, 5)
    # A pouch cannot say that a body is not for a State: the last one stays wanted until the issuer is asked.
    assert nl.body_states(ee.origin) == ["held"] * 4 + ["wanted"]
    assert titles(nl) == [SECRET, "Public 0", "Public 1", "Public 2"]

    back = tmp_path / "back.pouch"
    packed(nl, "EE", back)
    assert taken(ee, back).receipts == 1

    # What NL is proven to hold is not carried twice.
    ee.post(["News"])
    again = packed(ee, "NL", tmp_path / "again.pouch").manifest
    (more,) = [c for c in again.logs if c.origin == ee.origin]
    assert (more.start, more.end) == (5, 6)
    assert taken(nl, tmp_path / "again.pouch").logs[0].after == 6


def unzipped(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def test_between_two_states_alone_bodies_come_by_pouch_too(tmp_path: Path) -> None:
    members = [Member(code, 1100 + n) for n, code in enumerate(("EE", "NL"))]
    founded = found(tmp_path / "federation", members, central="NL", at=clock() // 1000)
    ee, nl = (copied(founded, code, tmp_path / "copies") for code in ("EE", "NL"))
    ee.post(["Public"], **PUBLIC)
    ee.post([SECRET], tlp="TLP:RED", audience=["EE", "NL"])
    packed(ee, "NL", tmp_path / "x.pouch")
    assert [(one.after, one.bodies) for one in taken(nl, tmp_path / "x.pouch").logs] == [(2, 2)]


def test_a_second_time_and_an_older_pouch_change_nothing(three: Three, tmp_path: Path) -> None:
    ee, nl = three.ee, three.nl
    ee.post(["One"])
    packed(ee, "NL", tmp_path / "old.pouch")
    ee.post(["Two"])
    packed(ee, "NL", tmp_path / "new.pouch")
    taken(nl, tmp_path / "new.pouch")
    before = nl.sizes()
    for name in ("new.pouch", "old.pouch"):
        result = taken(nl, tmp_path / name)
        assert [(one.before, one.after, one.bodies, one.fault) for one in result.logs] == [(2, 2, 0, None)]
    assert nl.sizes() == before


def test_it_goes_on_where_it_was_cut_off(three: Three, tmp_path: Path) -> None:
    ee, nl = three.ee, three.nl
    ee.post([f"Notice {n}" for n in range(700)])
    path = tmp_path / "long.pouch"
    packed(ee, "NL", path)

    class Cut(Exception):
        pass

    def cut(_done: int, _what: str) -> None:
        raise Cut

    with opened(path) as pouch, pytest.raises(Cut):
        unpack(nl.settings, pouch, clock=clock, show=cut)
    assert nl.sizes()[ee.origin][0] == 700
    assert [one.fault for one in taken(nl, path).logs] == [None]
    assert nl.sizes()[ee.origin] == (700, 700)
    assert nl.body_states(ee.origin) == ["held"] * 700


def test_what_a_node_only_carries_reaches_the_addressee_by_pouch(three: Three, tmp_path: Path) -> None:
    ee, us, nl = three.ee, three.us, three.nl
    ee.post([SECRET], tlp="TLP:RED", audience=["EE", "NL"])
    ee.seal()
    # The US, which may not read it, mirrors the log and carries the body: here by pouch as well, then as a wire would.
    packed(ee, "US", tmp_path / "us.pouch")
    taken(us, tmp_path / "us.pouch")
    copy_carried(ee, us)
    made = packed(us, "NL", tmp_path / "nl.pouch")
    assert [c.sealed for c in made.manifest.logs if c.origin == ee.origin] == [1]
    taken(nl, tmp_path / "nl.pouch")
    assert titles(nl) == [SECRET]
    assert titles(us) == []


def test_bodies_that_no_pouch_carries_do_not_hide_those_it_does(three: Three, tmp_path: Path) -> None:
    ee, nl = three.ee, three.nl
    ee.post([f"For nobody else {n}" for n in range(LATE_AT_ONCE + 1)], tlp="TLP:RED", audience=["EE"])
    ee.post([SECRET], tlp="TLP:RED", audience=["EE", "NL"])
    packed(ee, "US", tmp_path / "us.pouch")
    taken(nl, tmp_path / "us.pouch")  # the leaves; and no body, which NL then still wants, all of them
    assert titles(nl) == []
    packed(ee, "NL", tmp_path / "nl.pouch", since={})
    assert [one.bodies for one in taken(nl, tmp_path / "nl.pouch").logs] == [1]
    assert titles(nl) == [SECRET]


def copy_carried(of: State, to: State) -> None:
    from sqlalchemy import select

    from app.models import CarriedRow, LogRow

    with of.database() as db, db.read() as session:
        rows = [
            (r.idx, r.recipient, bytes(r.sealed), r.size)
            for r in session.execute(select(CarriedRow)).scalars()
        ]
    with to.database() as db, db.write() as session:
        log_id = session.execute(select(LogRow.id).where(LogRow.origin == of.origin)).scalar_one()
        for idx, recipient, sealed, size in rows:
            session.add(
                CarriedRow(log_id=log_id, idx=idx, recipient=recipient, sealed=sealed, size=size, at=clock())
            )


def test_a_pouch_for_another_state_gives_its_logs_and_no_sealed_body(three: Three, tmp_path: Path) -> None:
    ee, us = three.ee, three.us
    ee.post(["Public"], **PUBLIC)
    ee.post([SECRET], tlp="TLP:RED", audience=["EE", "NL"])
    packed(ee, "NL", tmp_path / "nl.pouch")
    assert [(one.after, one.bodies) for one in taken(us, tmp_path / "nl.pouch").logs] == [(2, 1)]
    assert titles(us) == ["Public"]


def test_a_node_that_is_behind_its_own_pouch_is_told_not_to_post(three: Three, tmp_path: Path) -> None:
    ee, nl = three.ee, three.nl
    ee.post(["One"])
    packed(ee, "NL", tmp_path / "there.pouch")
    taken(nl, tmp_path / "there.pouch")
    packed(nl, "EE", tmp_path / "back.pouch")
    (ee.settings.data_dir / "verbale.db").unlink()
    begin_log(ee.settings)
    with pytest.raises(WitnessAhead):
        taken(ee, tmp_path / "back.pouch")


def test_a_head_of_ones_own_log_that_is_not_ones_own_is_told(three: Three, tmp_path: Path) -> None:
    ee, nl = three.ee, three.nl
    ee.post(["One"])
    packed(ee, "NL", tmp_path / "there.pouch")
    taken(nl, tmp_path / "there.pouch")
    packed(nl, "EE", tmp_path / "back.pouch")
    (ee.settings.data_dir / "verbale.db").unlink()
    begin_log(ee.settings)
    ee.post(["Another first notice"])
    with pytest.raises(PouchRefused, match="is not the one this node signed"):
        taken(ee, tmp_path / "back.pouch")


def test_a_pouch_is_packed_for_another_state_with_a_node_and_over_no_file(
    three: Three, tmp_path: Path
) -> None:
    three.ee.post(["One"])
    for code in ("EE", "JP", "XX"):
        with pytest.raises(NothingToCarry):
            packed(three.ee, code, tmp_path / "x.pouch")
    (tmp_path / "x.pouch").write_bytes(b"precious")
    with pytest.raises(PouchExists):
        packed(three.ee, "NL", tmp_path / "x.pouch")
    assert (tmp_path / "x.pouch").read_bytes() == b"precious"
    assert [p.name for p in tmp_path.glob(".pouch-*")] == []


# ── what a carrier can do ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def small(founded: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Three, Path]:
    """A pouch with an open and a sealed body, and the States it is about."""
    from tests.pouch.conftest import _three

    directory = tmp_path_factory.mktemp("small")
    three = _three(founded, directory, lambda _: None)  # type: ignore[arg-type]
    three.ee.post(["Public"], **PUBLIC)
    three.ee.post([SECRET], tlp="TLP:RED", audience=["EE", "NL"])
    packed(three.ee, "NL", directory / "small.pouch")
    return three, directory / "small.pouch"


def test_a_flipped_byte_anywhere_is_damage(small: tuple[Three, Path], tmp_path: Path) -> None:
    raw = small[1].read_bytes()
    path = tmp_path / "flipped.pouch"
    with path.open("w+b") as file:
        file.write(raw)
        for at in range(0, len(raw), 1 if len(raw) < 40_000 else 7):
            file.seek(at)
            file.write(bytes([raw[at] ^ 1]))
            file.flush()
            with pytest.raises(PouchDamaged), opened(path):
                pass
            file.seek(at)
            file.write(raw[at : at + 1])
    for length in (0, 1, len(MAGIC), 81, 82, 83, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(PouchDamaged), opened(path):
            pass


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A pouch whose carrier changed members and made the digest again."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    return write(target, list(members.items()))


def write(target: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    buffer = io.BytesIO()
    buffer.write(MAGIC + b"0" * 64 + b"\n")
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    body = buffer.getvalue()[82:]
    target.write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    return target


def test_a_byte_changed_in_any_member_is_found_and_named(small: tuple[Three, Path], tmp_path: Path) -> None:
    three, source = small
    pinned = three.federation.root.read_bytes()
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        for at in {0, len(content) // 3, len(content) // 2, len(content) - 2}:
            altered = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            path = write(tmp_path / "altered.pouch", [*(members | {name: altered}).items()])
            if b'"sealed":' in content or name == "pouch.json":
                continue  # what is sealed proves itself when it is opened; the manifest is believed in nothing
            with opened(path) as pouch, pytest.raises((PouchRefused, PouchMalformed)) as refusal:
                inspect(pouch, pinned)
            assert refusal.value.args[0]


@pytest.mark.parametrize(
    ("bundle", "named"),
    [
        (BundlePath(0), "is not the tile that the one above it names"),
        (BundlePath(1, 44), "the hashes do not give the root that the log signed"),
    ],
    ids=["in a full tile", "in the last one"],
)
def test_another_leaf_with_its_own_hash_is_found_by_the_hashes_above(
    three: Three, tmp_path: Path, bundle: BundlePath, named: str
) -> None:
    three.ee.post([f"Notice {n}" for n in range(300)], **PUBLIC)
    packed(three.ee, "NL", tmp_path / "true.pouch")
    prefix = log_prefix(three.ee.origin)

    def exchange(members: dict[str, bytes]) -> None:
        entries = decode_bundle(members[f"{prefix}/{bundle}"], bundle.width)
        entries[3] = entries[3][:-1] + bytes([entries[3][-1] ^ 1])
        members[f"{prefix}/{bundle}"] = encode_bundle(entries)
        tile = f"{prefix}/{TilePath(0, bundle.index, bundle.width)}"
        members[tile] = members[tile][: 3 * 32] + hash_leaf(entries[3]) + members[tile][4 * 32 :]

    path = rewrite(tmp_path / "true.pouch", tmp_path / "exchanged.pouch", exchange)
    with opened(path) as pouch, pytest.raises(PouchRefused, match=named):
        inspect(pouch, three.federation.root.read_bytes())


def without(*names: str) -> Callable[[dict[str, bytes], str], None]:
    def change(members: dict[str, bytes], prefix: str) -> None:
        for name in [n for n in members if n.startswith(tuple(name.format(prefix) for name in names))]:
            del members[name]

    return change


def with_more(name: str, content: bytes) -> Callable[[dict[str, bytes], str], None]:
    def change(members: dict[str, bytes], prefix: str) -> None:
        members[name.format(prefix)] = content

    return change


def shorter(members: dict[str, bytes], _prefix: str) -> None:
    """A table of contents that says less than the head it comes with."""
    value = orjson.loads(members["pouch.json"])
    value["logs"][0]["to"] -= 1
    members["pouch.json"] = orjson.dumps(value)


LIES = {
    "a shorter log": shorter,
    "no leaf": without("{}/tile/entries"),
    "no hashes": without("{}/tile/0"),
    "no head": without("{}/checkpoint"),
    "no roster": without("roster/"),
    "no manifest": without("pouch.json"),
    "another log's members": with_more(f"log/{'0' * 64}/checkpoint", b"x"),
}


@pytest.mark.parametrize("name", LIES)
def test_what_is_missing_or_too_much_is_named(small: tuple[Three, Path], tmp_path: Path, name: str) -> None:
    three, source = small
    prefix = log_prefix(three.ee.origin)
    path = rewrite(source, tmp_path / "lie.pouch", lambda members: LIES[name](members, prefix))
    with opened(path) as pouch, pytest.raises((PouchRefused, PouchMalformed)):
        inspect(pouch, three.federation.root.read_bytes())


def test_a_table_of_contents_that_is_not_the_heads_is_named(
    small: tuple[Three, Path], tmp_path: Path
) -> None:
    three, source = small
    path = rewrite(source, tmp_path / "short.pouch", lambda members: shorter(members, ""))
    with opened(path) as pouch, pytest.raises(PouchRefused, match="the head is of size 2, not 1"):
        inspect(pouch, three.federation.root.read_bytes())


def test_a_body_that_is_not_its_leafs_or_of_no_leaf_carried_is_named(three: Three, tmp_path: Path) -> None:
    ee, root = three.ee, three.federation.root.read_bytes()
    ee.post(["Public", "Other"], **PUBLIC)
    packed(ee, "NL", tmp_path / "true.pouch")

    def inspected(change: Callable[[list[dict[str, Any]]], None]) -> None:
        def lines_changed(members: dict[str, bytes]) -> None:
            (name,) = [n for n in members if "/bodies/" in n]
            lines = [orjson.loads(line) for line in members[name].splitlines()]
            change(lines)
            members[name] = b"\n".join(orjson.dumps(line) for line in lines)

        path = rewrite(tmp_path / "true.pouch", tmp_path / "false.pouch", lines_changed)
        with opened(path) as pouch:
            inspect(pouch, root)

    def exchanged(lines: list[dict[str, Any]]) -> None:
        lines[0]["parts"], lines[1]["parts"] = lines[1]["parts"], lines[0]["parts"]

    def of_no_leaf(lines: list[dict[str, Any]]) -> None:
        lines.append({"origin": ee.origin, "index": 2, "sealed": {}})

    inspected(lambda _: None)
    with pytest.raises(PouchRefused, match="the body of leaf 0"):
        inspected(exchanged)
    with pytest.raises(PouchRefused, match="holds a body of leaf 2, which is not in the pouch"):
        inspected(of_no_leaf)


def test_a_pouch_with_false_leaves_or_bodies_gives_a_node_nothing_false(three: Three, tmp_path: Path) -> None:
    ee, nl = three.ee, three.nl
    ee.post(["Public", "Other"], **PUBLIC)
    packed(ee, "NL", tmp_path / "true.pouch")
    prefix = log_prefix(ee.origin)

    def other_leaf(members: dict[str, bytes]) -> None:
        name = f"{prefix}/tile/entries/000.p/2"
        members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])

    result = taken(nl, rewrite(tmp_path / "true.pouch", tmp_path / "leaf.pouch", other_leaf))
    assert result.logs[0].fault is not None
    assert nl.sizes()[ee.origin] == (0, 0)

    def other_body(members: dict[str, bytes]) -> None:
        (name,) = [n for n in members if "/bodies/" in n]
        lines = [orjson.loads(line) for line in members[name].splitlines()]
        lines[0]["parts"], lines[1]["parts"] = lines[1]["parts"], lines[0]["parts"]
        members[name] = b"\n".join(orjson.dumps(line) for line in lines)

    taken(nl, rewrite(tmp_path / "true.pouch", tmp_path / "body.pouch", other_body))
    assert nl.body_states(ee.origin) == ["wanted", "wanted"]
    taken(nl, tmp_path / "true.pouch")
    assert nl.body_states(ee.origin) == ["held", "held"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "roster/../../x.json", "log/xyz/checkpoint", "a" * 300, "pouch.json/"],
)
def test_a_name_that_no_pouch_has_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "evil.pouch", [("pouch.json", b"{}"), (name, b"x")])
    with pytest.raises(PouchMalformed), opened(path):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.pouch", [("pouch.json", b"{}"), ("pouch.json", b"[]")])
    with pytest.raises(PouchMalformed), opened(path):
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_no_pouch_uses_is_refused(tmp_path: Path, method: int) -> None:
    path = write(tmp_path / "odd.pouch", [("pouch.json", b"{}")], method)
    with pytest.raises(PouchMalformed), opened(path):
        pass


def test_a_member_that_swells_is_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.pouch", [("pouch.json", bytes(64 * 2**20))])
    assert path.stat().st_size < 2**20
    with opened(path) as pouch, pytest.raises(PouchMalformed):
        read_manifest(pouch)


def test_rubbish_with_a_right_digest_is_refused(tmp_path: Path) -> None:
    for number in range(50):
        body = os.urandom(number * 37)
        path = tmp_path / "rubbish.pouch"
        path.write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        with pytest.raises(VerbaleError), opened(path):
            pass
