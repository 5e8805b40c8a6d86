"""The projections are a fold of the logs: dropped and folded again, they are what they were."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select, text, true, update

from app import bodies
from app.db import Database
from app.domain.at_rest import seal_parts
from app.domain.errors import LogCorrupt
from app.domain.statement import Part
from app.judging import Judges
from app.models import Base, BodyRow, EntryRow, NoticeRow, NoticeTermRow, ScreenedRow
from app.projections.rebuild import Live, Rebuilt, rebuild_log
from app.record import record_mirrored
from app.tlog.fsck import logs_of
from tests import examples
from tests.federation.world import Peer, World, answer

LIVE = Live(Judges(processes=0).leaves, record_mirrored)
TABLES = (
    "entries",
    "notices",
    "notice_terms",
    "screened_notices",
    "bodies",
    "body_keys",
    "events",
    "counters",
    "logs",
)


def everything(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the projections and of what they must leave alone, in the order of their keys."""
    found = {}
    with db.read() as session:
        for name in TABLES:
            table = Base.metadata.tables[name]
            # A refolding is a change to whoever keeps an index of what is screened against: it gets new numbers.
            columns = [c for c in table.columns if (name, c.name) != ("screened_notices", "seq")]
            rows = session.execute(
                select(*columns)
                .where(table.c.name.not_like("screened%") if name == "counters" else true())
                .order_by(*table.primary_key.columns)
            )
            found[name] = [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in rows]
    return found


def rebuild(peer: Peer) -> list[Rebuilt]:
    return [
        rebuild_log(peer.db, log_id, live=LIVE, roster=peer.world.roster, now=peer.world.clock())
        for log_id, _, _ in logs_of(peer.db)
    ]


def live_through_much(world: World) -> Peer:
    """A node of the US after a history of every kind: its own log, two mirrors, late, absent, erased and flagged things."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    own = us.must_post(us.officer.sign(examples.denied_end_user(issuer="US")))
    us.must_post(
        us.officer.sign(
            amendment(own, examples.denied_end_user(issuer="US", title="Amended")), "amend", ref=own.hash
        )
    )
    ee_kept = ee.must_post(ee.officer.sign(examples.denied_end_user()))
    ee_gone = ee.must_post(ee.officer.sign(examples.technology_threat()))
    us.sync(ee)
    # Amended for others only: recalled here, and its body absent.
    ee.must_post(
        ee.officer.sign(
            amendment(ee_gone, examples.technology_threat(tlp="TLP:RED", audience=["NL"])),
            "amend",
            ref=ee_gone.hash,
        )
    )
    # A merge patch whose body comes late, and a withdrawal after it.
    patched = ee.must_post(
        ee.officer.sign(amendment(ee_kept, None, {"title": "Patched"}), "amend", ref=ee_kept.hash)
    )
    us.line.rules.append(lambda request: answer(503) if request.url.path == "/bodies" else None)
    world.clock.tick(60)
    us.sync(ee)
    us.line.rules.clear()
    world.clock.tick(60)
    us.judge(ee)
    withdrawn = ee.must_post(ee.officer.sign(withdrawal(patched), "withdraw", ref=patched.hash))
    # Two that are erased: one in the window in which it is issued, one that had been withdrawn.
    brief = ee.must_post(ee.officer.sign(examples.best_practice()))
    ee.must_post(ee.officer.sign(None, "erase", ref=brief.hash))
    us.sync(ee)
    ee.must_post(ee.officer.sign(None, "erase", ref=withdrawn.hash))
    # An acknowledgement, flagged leaves and a flagged body.
    nl.sync(ee)
    nl.must_post(
        nl.officer.sign(
            examples.acknowledgement(issuer="NL", body={"notice": {"id": ee_gone.id, "hash": ee_gone.ref}}),
            "ack",
            ref=ee_gone.hash,
        )
    )
    invalid = nl.officer.sign(examples.denied_end_user(issuer="EE"))
    foreign = nl.officer.sign(examples.denied_end_user(issuer="NL"), kid="NL/cp/9")
    stale = nl.officer.sign(None, "erase", ref=b"\x07" * 32)
    nl.smuggle(
        (invalid.leaf, invalid.parts), (foreign.leaf, foreign.parts), (stale.leaf, {}), (b"x" * 300, {})
    )
    world.clock.tick(60)
    us.sync(ee)
    us.sync(nl)
    us.must_post(us.officer.sign(examples.best_practice(issuer="US", tlp="TLP:AMBER", audience=["EE", "US"])))
    return us


def amendment(
    of: Any, replacement: dict[str, Any] | None, patch: dict[str, Any] | None = None
) -> dict[str, Any]:
    change = {"merge_patch": patch} if replacement is None else {"replacement": replacement}
    handling = {k: replacement[k] for k in ("tlp", "audience", "issuer")} if replacement else {}
    return examples.amendment(**handling, body={"amends": {"id": of.id, "hash": of.ref}, "change": change})


def withdrawal(of: Any) -> dict[str, Any]:
    return examples.withdrawal(body={"withdraws": {"id": of.id, "hash": of.ref}})


def test_tables_that_are_folded_again_are_what_they_were(world: World) -> None:
    us = live_through_much(world)
    before = everything(us.db)
    states = {row[EntryRow.__table__.columns.keys().index("body_state")] for row in before["entries"]}
    assert states == {"none", "held", "absent", "erased"}
    faults = {row[EntryRow.__table__.columns.keys().index("fault_code")] for row in before["entries"]}
    assert faults >= {None, "unknown-key", "unknown-reference", "malformed-statement"}
    rebuilt = rebuild(us)
    assert everything(us.db) == before
    assert all(one.flagged == one.flagged_before for one in rebuilt)


def test_rows_that_were_changed_by_hand_are_put_right(world: World) -> None:
    us = live_through_much(world)
    before = everything(us.db)
    with us.db.write() as session:
        session.execute(update(NoticeRow).values(title="Forged", status="active", tlp_rank=0))
        session.execute(delete(NoticeTermRow))
        session.execute(update(ScreenedRow).values(parties="[]", audience="ALL"))
        session.execute(update(EntryRow).where(EntryRow.fault_code.is_not(None)).values(fault_code="forged"))
    rebuild(us)
    assert everything(us.db) == before


def test_a_wanted_body_stays_wanted_and_is_fetched_later(world: World) -> None:
    us, ee = world.make("US"), world.make("EE")
    ee.must_post(ee.officer.sign(examples.denied_end_user()))
    us.line.rules.append(lambda request: answer(503) if request.url.path == "/bodies" else None)
    us.sync(ee)
    before = everything(us.db)
    rebuild(us)
    assert everything(us.db) == before
    us.line.rules.clear()
    us.judge(ee)
    assert us.titles() == ["Denied: Aurelian Sky Systems LLC"]


def test_a_node_goes_on_after_a_rebuild(world: World) -> None:
    us = live_through_much(world)
    rebuild(us)
    issued = us.must_post(us.officer.sign(examples.denied_end_user(issuer="US", title="After")))
    assert us.titles()[0] == "After"
    assert us.post(issued).status_code == 200
    world.peers["EE"].must_post(world.peers["EE"].officer.sign(examples.denied_end_user(title="From EE")))
    us.sync(world.peers["EE"])
    assert us.titles()[0] == "From EE"


def test_a_rebuild_that_fails_leaves_the_log_as_it_was(world: World) -> None:
    us = live_through_much(world)
    with us.db.write() as session:
        last = session.scalars(
            select(BodyRow).where(BodyRow.log_id == us.node.log_id).order_by(BodyRow.idx.desc())
        ).first()
        assert last is not None
        index = last.idx
        salt = bodies.opened(session, us.node.log_id, [index])[index]["main"].salt
        bodies.destroy(session, us.node.log_id, [index])
        bodies.store(
            us.db, session, us.node.log_id, [(index, seal_parts(index, {"main": Part(salt, b"{}")}), 0)]
        )
    before = everything(us.db)
    with pytest.raises(LogCorrupt, match=r"does not open its commitment\. Run: verbale fsck"):
        rebuild(us)
    assert everything(us.db) == before


def test_a_leaf_whose_key_reached_the_roster_late_is_healed(world: World) -> None:
    from app.domain.roster import RosterKey
    from tests.federation.world import NOW, seeded

    us, nl = world.make("US"), world.make("NL")
    signed = nl.officer.sign(examples.best_practice(issuer="NL"), kid="NL/cp/2", signer=seeded("NL/cp/2"))
    nl.smuggle((signed.leaf, signed.parts))
    us.sync(nl)
    assert us.faults("NL") == {0: "unknown-key"}
    world.add_key("NL", RosterKey("NL/cp/2", "notices", seeded("NL/cp/2").public, NOW - 1000))
    rebuild(us)
    assert us.faults("NL") == {}
    us.judge(nl)
    assert us.titles() == ["Ask for the authorisation"]


def test_the_counter_of_arrivals_gives_no_number_twice(world: World) -> None:
    us = live_through_much(world)
    rebuild(us)
    with us.db.read() as session:
        highest = session.execute(text("SELECT max(seq) FROM notices")).scalar_one()
        assert (
            session.execute(text("SELECT value FROM counters WHERE name = 'notices'")).scalar_one() >= highest
        )
