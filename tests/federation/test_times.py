"""When a leaf was logged, and whether what it claims fits: the same at every node, whenever it came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select

from app.domain.errors import Refused
from app.domain.quorum import quorum_of
from app.domain.times import utc_day
from app.keyfiles import card_path, create_key, read_card
from app.models import ConfirmationRow, CosignatureRow
from app.projections.rejudge import is_due
from app.proofs import open_history
from app.replication.history import compare_history
from app.replication.witness import log_keys
from app.tlog.checkpoint import Checkpoint, sign_checkpoint
from app.tlog.confirm import (
    REFRESH_S,
    confirmers,
    decode_history,
    encode_history,
    open_confirmation,
    read_history,
)
from app.tlog.cosignature import cosign, with_cosignatures
from app.tlog.note import NoKnownSignature, Note
from app.tlog.note import parse as parse_note
from tests import examples
from tests.federation.test_replication import issue
from tests.federation.world import NOW, Peer, Signed, World, answer, origin_of, seeded

Times = tuple[str | None, str | None, str | None]


def clock_text(seconds: int) -> str:
    from app.queries.notices import rfc3339

    return rfc3339(seconds * 1000)


def claim(peer: Peer, title: str, iat: int) -> Signed:
    """A notice that claims a time, put into the log past the local door, as its own State can."""
    signed = peer.officer.sign(examples.denied_end_user(issuer=peer.state, title=title), iat=iat)
    peer.smuggle((signed.leaf, signed.parts))
    return signed


def times(peer: Peer) -> dict[str, Times]:
    """Title → after, before and flag, as one node shows them."""
    every = [("status", "all")]
    items = peer.get("/v1/notices", params=every, headers=peer.token())["items"]
    return {i["title"]: (i["logged"]["after"], i["logged"]["before"], i["logged"]["flag"]) for i in items}


def flags(peer: Peer) -> dict[str, str | None]:
    return {title: flag for title, (_, _, flag) in times(peer).items()}


def history(peer: Peer, of: Peer) -> list[bytes]:
    with peer.db.read() as session:
        return read_history(session, peer.log(of).id, 0)


def everybody(five: World) -> list[Peer]:
    return [five.make(code) for code in ("EE", "US", "NL", "JP")]


def test_a_leaf_was_logged_between_two_confirmed_checkpoints(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    ee.witnessed(us, nl, jp)  # size 0
    five.clock.tick(100)
    issue(ee, "first")
    assert times(ee) == {"first": (clock_text(NOW), None, None)}
    for wait, peer in ((10, us), (10, nl), (10, jp)):
        five.clock.tick(wait)
        ee.witnessed(peer)
    assert times(ee) == {
        "first": (clock_text(NOW), clock_text(NOW + 120), None)
    }  # the median of 110, 120, 130

    us.sync(ee)
    assert times(us) == times(ee)


def test_every_node_flags_the_same_whenever_it_saw_the_leaf(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    ee.witnessed(us, nl, jp)
    five.clock.tick(10_000)
    ee.witnessed(us, nl, jp)  # the log has stood still until now
    claims = {
        "an hour ago": NOW + 10_000 - 3600,
        "five minutes ago": NOW + 10_000 - 300,
        "now": NOW + 10_000,
        "in five minutes": NOW + 10_000 + 300,
        "in ten minutes": NOW + 10_000 + 600,
        "in 2250": 8_835_566_400,
        "at the end of time": 2**40,
    }
    for title, iat in claims.items():
        claim(ee, title, iat)
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    us.follow(ee)
    five.clock.tick(100_000)
    late = five.make("FI")  # sees these leaves for the first time when two of the claims are long past
    late.sync(ee)
    expected = {
        "an hour ago": "back-dated",
        "five minutes ago": None,
        "now": None,
        "in five minutes": None,
        "in ten minutes": "post-dated",
        "in 2250": "post-dated",
        "at the end of time": "post-dated",
    }
    assert flags(us) == flags(late) == expected
    assert times(us) == times(late)
    assert late.faults(ee) == us.faults(ee) == {}  # it stands and is shown as what it is, by all alike


def test_nothing_is_said_of_a_time_before_a_quorum_has_seen_the_leaf(five: World) -> None:
    ee, us, nl, _ = everybody(five)
    ee.witnessed(us, nl)
    claim(ee, "in 2250", 8_835_566_400)
    ee.witnessed(us, nl)
    us.judge(ee)
    assert flags(us) == {"in 2250": None}


def test_a_log_that_stands_still_is_cosigned_again_and_the_next_leaf_cannot_be_older(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    five.clock.tick(REFRESH_S - 1)
    assert not any(ee.offer(peer) for peer in (us, nl, jp))
    five.clock.tick(1)
    assert all(ee.offer(peer) for peer in (us, nl, jp))
    claim(ee, "second", NOW)
    five.clock.tick(60)
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    us.follow(ee)
    assert times(us)["second"] == (
        clock_text(NOW + REFRESH_S),
        clock_text(NOW + REFRESH_S + 60),
        "back-dated",
    )
    assert times(us)["first"] == (None, clock_text(NOW), None)
    first = ee.get("/v1/notices", headers=ee.token())["items"][-1]
    holders = ee.get(f"/v1/notices/{first['id']}/receipts", headers=ee.token())["states"]
    since = {s["state"]: s["current"]["at"] for s in holders if s["current"] and s["role"] == "witness"}
    assert set(since.values()) == {
        clock_text(NOW)
    }  # when a State holds it since is not moved by the later time


@pytest.mark.parametrize("lie", [1, NOW - 10**8, NOW + 10**7])
def test_as_many_witnesses_as_may_lie_cannot_move_a_bracket(five: World, lie: int) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "said")
    ee.witnessed(us, nl)
    with at_time(five, lie):
        ee.offer(jp)
    assert times(ee)["said"] == (None, clock_text(NOW), None)


@contextmanager
def at_time(world: World, seconds: int) -> Iterator[None]:
    honest = world.clock.ms
    world.clock.ms = seconds * 1000
    yield
    world.clock.ms = honest


# ── a log that shows its history to some ──────────────────────────────────────────────────────────────────────────


def hidden(request: httpx.Request) -> httpx.Response | None:
    """The origin serves no history; mirrors do."""
    if "/history/" in str(request.url) and request.url.path.startswith("/log/"):
        return answer(200)
    return None


def test_what_a_log_hides_of_its_history_comes_from_another_mirror(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    ee.witnessed(us, nl, jp)
    us.follow(ee)
    five.clock.tick(5000)
    claim(ee, "an hour ago", NOW + 1000)
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    us.follow(ee)
    nl.line.rules.append(hidden)
    nl.sync(ee)
    assert flags(us) == {"an hour ago": None}  # the log stood still, unseen by a quorum, since before
    with us.db.read() as session:
        assert len(session.scalars(select(ConfirmationRow)).all()) == 2

    # Two histories: one node was shown less. The bracket there is wider, and never another one.
    with nl.db.write() as session:
        session.execute(delete(ConfirmationRow))
    assert times(nl) == {"an hour ago": (None, None, None)}
    nl.followed(ee).compare_at = 0
    nl.followed(ee).compared = 0  # US is the first of the other mirrors it asks
    nl.follow(ee)
    assert times(nl) == times(us)
    assert history(nl, ee) == history(us, ee) == history(ee, ee)


def test_a_history_that_does_not_hold_is_dropped_and_stops_nothing(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    honest = history(ee, ee)
    issue(nl, "elsewhere")
    nl.witnessed(us, ee, jp)
    for served in (
        b"\x00",
        b"\xff" * 70_000,
        encode_history([b"no note"]),
        encode_history(history(nl, nl)),
        encode_history([without_cosignature(honest[0])]),
        encode_history(honest * 65),
    ):
        us.line.rules[:] = [partial(replaced, served)]
        us.follow(ee)
        assert history(us, ee) == [], served[:40]
    us.judge(ee)
    assert us.titles() == ["first"]
    us.line.rules.clear()
    us.follow(ee)
    assert history(us, ee) == honest


def replaced(served: bytes, request: httpx.Request) -> httpx.Response | None:
    return answer(200, served) if "/history/" in str(request.url) else None


def without_cosignature(note: bytes) -> bytes:
    return b"\n".join(note.split(b"\n")[:-2]) + b"\n"


def cosigned_by(world: World, head: Note, states: tuple[str, ...], at: int = NOW) -> bytes:
    """A checkpoint cosigned by witnesses who looked at nothing."""
    nodes = [world.peers[state].node for state in states]
    lines = [cosign(Checkpoint.parse(head.text), n.witness.name, n.keys.witness, at) for n in nodes]
    return with_cosignatures(head, lines).encode()


def test_a_confirmed_checkpoint_of_another_tree_is_not_taken(five: World) -> None:
    ee, us, _, _ = everybody(five)
    issue(ee, "one history")
    ee.publish()
    us.follow(ee)
    another = sign_checkpoint(Checkpoint(origin_of("EE"), 1, b"\x07" * 32), ee.node.keys.log)
    forged = cosigned_by(five, another, ("NL", "JP", "US"))
    us.line.rules.append(partial(replaced, encode_history([forged])))
    us.follow(ee)
    assert history(us, ee) == []
    assert us.federation(ee)["confirmed"]["size"] == 0


def test_every_flipped_byte_of_a_confirmed_checkpoint_is_refused_with_a_reason(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)  # three of four: not one line too many
    (note,) = history(ee, ee)
    how: dict[str, Any] = {
        "keys": lambda size: log_keys(five.roster, origin_of("EE"), settled=size),
        "origin": origin_of("EE"),
        "witnesses": confirmers(five.roster),
        "quorum_at": lambda at: five.roster.quorum_for("EE", at),
    }
    assert open_confirmation(note, **how).states == {"US", "NL", "JP"}
    for at in range(len(note)):
        for bit in (1, 0x80):
            changed = bytearray(note)
            changed[at] ^= bit
            with pytest.raises(Refused) as refusal:
                open_confirmation(bytes(changed), **how)
            assert str(refusal.value)
    page = encode_history([note])
    for at in range(2):
        changed = bytearray(page)
        changed[at] ^= 1
        try:
            found = decode_history(bytes(changed))
        except Refused:
            continue
        assert note not in found


def test_what_was_confirmed_under_a_log_key_stays_confirmed_when_the_key_is_revoked(five: World) -> None:
    """A node that comes later tells the same times; beyond the index the key counts no more, whoever cosigns."""
    ee, us, nl, jp = everybody(five)
    for title in ("first", "second"):
        issue(ee, title)
        ee.witnessed(us, nl, jp)
        five.clock.tick(60)
    one, two = history(ee, ee)
    (old,) = (k for k in five.roster.states["EE"].keys if k.use == "log")
    others = tuple(k for k in five.roster.states["EE"].keys if k.use != "log")
    fresh = replace(old, kid="EE/log/2", key=seeded("EE/log/2").public)
    five.change_state("EE", keys=(*others, replace(old, revoked_at_index=1), fresh))
    how: dict[str, Any] = {
        "keys": lambda size: log_keys(five.roster, origin_of("EE"), settled=size),
        "origin": origin_of("EE"),
        "witnesses": confirmers(five.roster),
        "quorum_at": lambda at: five.roster.quorum_for("EE", at),
    }
    assert open_confirmation(one, **how).checkpoint.size == 1
    with pytest.raises(NoKnownSignature):
        open_confirmation(two, **how)
    assert [key.key for key in log_keys(five.roster, origin_of("EE"))] == [
        fresh.key
    ]  # of heads it proves nothing
    assert open_history([one.decode()], five.roster, origin_of("EE"))[0][0] == 1


def test_a_few_founders_cannot_confirm_by_naming_a_day_before_the_others_joined(five: World) -> None:
    """EE, US, NL and JP are recent; FI was alone with EE once. FI's cosignature of long ago must not be a quorum now."""
    witnessing_from(five, "FI", NOW - 500 * 86_400)
    ee, us, _, _ = everybody(five)
    fi = five.make("FI")
    issue(ee, "first")
    ee.publish()
    us.followed(ee)
    fi.follow(ee)
    assert five.roster.quorum_for("EE", NOW - 365 * 86_400) == quorum_of(["FI"])
    head = parse_note(ee.request("GET", "/log/1/checkpoint").content)
    forged = cosigned_by(five, head, ("FI",), at=NOW - 365 * 86_400)
    us.line.rules.append(partial(replaced, encode_history([forged])))
    us.follow(ee)
    assert len(history(us, ee)) == 1  # of that day it would be one
    assert us.federation(ee)["confirmed"]["size"] == 0


def test_founders_who_date_a_checkpoint_back_hide_no_notice_that_is_dated_back(five: World) -> None:
    """FI alone was a quorum once and says that it saw a notice of today then; the others' later times stand."""
    witnessing_from(five, "FI", NOW - 500 * 86_400)
    witnessing_from(five, "EE", NOW - 500 * 86_400, use="notices")
    ee, us, nl, jp = everybody(five)
    fi = five.make("FI")
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    then = NOW - 365 * 86_400
    claim(ee, "dated back", then)
    ee.publish()
    for peer in (us, fi):
        peer.sync(ee)
    head = parse_note(ee.request("GET", "/log/1/checkpoint").content)
    served = encode_history([*history(ee, ee), cosigned_by(five, head, ("FI",), at=then)])
    us.line.rules.append(partial(replaced, served))
    us.follow(ee)
    assert times(us)["dated back"] == (clock_text(NOW), clock_text(then), "back-dated")


def test_a_mirror_serves_the_same_history_as_the_log(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    for n in range(3):
        issue(ee, f"notice {n}")
        five.clock.tick(1)
        ee.witnessed(us, nl, jp)
    us.sync(ee)
    us.follow(ee)
    mirror = f"/mirror/{sha256(origin_of('EE').encode()).hexdigest()}"
    for start in (0, 2, 3, 4):
        theirs = ee.request("GET", f"/log/1/history/{start}").content
        assert us.request("GET", f"{mirror}/history/{start}").content == theirs
        sizes = [Checkpoint.parse(parse_note(note).text).size for note in decode_history(theirs)]
        assert sizes == [size for size in (1, 2, 3) if size >= start]
    assert ee.request("GET", "/log/1/history/-1").status_code == 404
    assert ee.request("GET", "/log/1/history/01").status_code == 404


# ── who counted then ──────────────────────────────────────────────────────────────────────────────────────────────


def witnessing_from(world: World, code: str, since: int, use: str = "witness") -> None:
    """Have a State's witness key, or its keys of another use, begin at another time."""
    keys = tuple(
        replace(key, active_from=since) if key.use == use else key for key in world.roster.states[code].keys
    )
    world.change_state(code, keys=keys)


def change_witness_key(world: World, code: str, **changes: Any) -> None:
    (key,) = world.roster.keys_of(code, "witness")
    others = tuple(k for k in world.roster.states[code].keys if k is not key)
    fresh = replace(key, kid=f"{code}/witness/2", key=seeded(f"{code}/witness/2").public)
    world.change_state(code, keys=(*others, replace(key, **changes), fresh))


def adopt(world: World, *peers: Peer) -> None:
    for peer in peers:
        peer.node.adopt(world.roster)


def agree_with_a_newcomer(five: World, ee: Peer, *others: Peer, late: str = "FI") -> dict[str, Times]:
    """What all tell of EE's notices, one node more included that begins now and takes everything from EE."""
    newcomer = five.make(late)
    newcomer.sync(ee)
    newcomer.follow(ee)
    told = times(newcomer)
    for peer in (ee, *others):
        assert times(peer) == told, peer.state
    return told


def test_what_few_states_confirmed_is_told_by_those_that_come_when_they_are_many(five: World) -> None:
    """JP and FI have no node at first: US and NL are all of a quorum. Later three of four have to cosign."""
    nodes = {code: five.roster.states[code] for code in ("JP", "FI")}
    for code in nodes:
        five.change_state(code, logs=(), keys=(), witness_name=None)
    ee, us, nl = (five.make(code) for code in ("EE", "US", "NL"))
    issue(ee, "among three")
    ee.witnessed(us, nl)
    us.sync(ee)
    assert times(us)["among three"][1] == clock_text(NOW)

    five.clock.tick(60 * 86_400)
    for code, state in nodes.items():
        five.change_state(code, logs=state.logs, keys=state.keys, witness_name=state.witness_name)
        witnessing_from(five, code, NOW + 60 * 86_400)
    adopt(five, ee, us, nl)
    assert five.roster.quorum_for("EE").needed == 3
    assert agree_with_a_newcomer(five, ee, us)["among three"][1] == clock_text(NOW)


def test_between_a_key_in_a_draft_and_its_adoption_the_quorum_of_before_confirms(five: World) -> None:
    """US and NL confirm, until JP's node is there: then all three do. The draft that lists JP's key is signed for five days."""
    nodes = {code: five.roster.states[code] for code in ("JP", "FI")}
    for code in nodes:
        five.change_state(code, logs=(), keys=(), witness_name=None)
    ee, us, nl = (five.make(code) for code in ("EE", "US", "NL"))
    five.clock.tick(65 * 86_400)
    issue(ee, "while they sign")
    ee.witnessed(us, nl)
    us.sync(ee)
    state = nodes["JP"]
    five.change_state("JP", logs=state.logs, keys=state.keys, witness_name=state.witness_name)
    witnessing_from(five, "JP", NOW + 60 * 86_400)
    adopt(five, ee, us)
    assert five.roster.quorum_for("EE").needed == 3
    assert agree_with_a_newcomer(five, ee, us, late="JP")["while they sign"][1] == clock_text(
        NOW + 65 * 86_400
    )


@pytest.mark.parametrize("status", ["suspended", "withdrawn"])
def test_what_a_state_cosigned_as_a_member_counts_when_it_has_left(five: World, status: str) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)  # three of four: a bare quorum
    us.sync(ee)
    five.change_state("JP", status=status, left=utc_day(NOW + 86_400), ends=((origin_of("JP"), 0),))
    adopt(five, ee, us)
    assert agree_with_a_newcomer(five, ee, us) == {"first": (None, clock_text(NOW), None)}


def test_what_it_cosigned_after_the_day_it_left_counts_nowhere(five: World) -> None:
    """The States find out that a witness lied since some day, and say so: nobody tells times by it any more."""
    ee, us, nl, jp = everybody(five)
    five.clock.tick(100 * 86_400)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    assert times(us)["first"][1] is not None
    five.change_state("JP", status="suspended", left=utc_day(NOW + 50 * 86_400))
    adopt(five, ee, us)
    us.sync(ee)
    assert agree_with_a_newcomer(five, ee, us) == {"first": (None, None, None)}
    assert (
        us.federation(ee)["confirmed"]["size"] == 1
    )  # what was found confirmed stays so; its time is not told


def test_what_a_stolen_witness_key_cosigned_before_it_was_stolen_counts(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "before")
    ee.witnessed(us, nl, jp)
    five.clock.tick(3600)
    issue(ee, "after")
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    change_witness_key(five, "JP", revoked_at_index=0, suspect_from=NOW + 1800)
    adopt(five, ee, us)
    us.sync(ee)
    told = agree_with_a_newcomer(five, ee, us)
    assert told["before"][:2] == (None, clock_text(NOW))
    assert told["after"][:2] == (clock_text(NOW), None)


def test_a_witness_key_revoked_without_a_time_counts_for_nothing(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    change_witness_key(five, "JP", revoked_at_index=0)
    adopt(five, ee, us)
    us.sync(ee)
    assert agree_with_a_newcomer(five, ee, us) == {"first": (None, None, None)}


def test_the_time_moves_where_the_cosignature_that_was_its_median_counts_no_more(five: World) -> None:
    """Of JP, US, NL and FI, in this order, US is the median. Without JP three are a quorum still, and NL is."""
    ee, us, nl, jp = everybody(five)
    fi = five.make("FI")
    issue(ee, "first")
    ee.witnessed(us, nl, jp, fi)
    five.clock.tick(REFRESH_S)
    for peer in (jp, us, nl, fi):
        five.clock.tick(10)
        ee.offer(peer)
    five.clock.tick(10)
    issue(ee, "second")
    ee.witnessed(us, nl, fi)
    for peer in (us, fi):
        peer.sync(ee)
        peer.follow(ee)
    assert times(us)["second"][0] == clock_text(NOW + REFRESH_S + 20)
    change_witness_key(five, "JP", revoked_at_index=0)
    adopt(five, ee, us, fi)
    for peer in (us, fi):
        peer.judge(ee)
    assert times(us)["second"][0] == clock_text(NOW + REFRESH_S + 30)
    assert times(us) == times(fi) == times(ee)
    with us.db.read() as session:
        kept = session.scalars(select(ConfirmationRow.at).where(ConfirmationRow.size == 1)).all()
    assert kept == [NOW + REFRESH_S + 30]


def test_a_history_that_is_counted_again_is_counted_once(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    five.change_state("JP", status="suspended", left=utc_day(NOW + 86_400), ends=((origin_of("JP"), 0),))
    adopt(five, us)
    us.judge(ee)
    with us.db.read() as session:
        assert us.log(ee).confirmed_under == five.roster.confirms_by
        assert not is_due(session, us.log(ee).id, five.roster)


def test_what_was_verified_by_the_roster_before_is_not_added_to_a_history_that_was_counted_again(
    five: World,
) -> None:
    """A look that began before the roster came writes after it."""
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    (kept,) = (note for note in history(us, ee) if Checkpoint.parse(parse_note(note).text).size == 1)
    before = five.roster
    five.change_state("JP", status="suspended", left="2024-01-01")
    adopt(five, us)
    us.judge(ee)
    assert kept not in history(us, ee)
    us.line.rules.append(partial(replaced, encode_history([kept])))
    source = f"{five.roster.states['EE'].url}/log/1"
    assert compare_history(us.db, us.node.client, us.log(ee).id, source, before, us.node.roster) == 0
    assert kept not in history(us, ee)


def test_a_history_is_counted_again_on_either_engine(world_on_both: World) -> None:
    """NL's key is stolen between two checkpoints: of seventy sizes what was cosigned before stays, over more than one page."""
    us, nl, ee = (world_on_both.make(code) for code in ("US", "NL", "EE"))
    for n in range(70):
        issue(us, f"notice {n}")
        world_on_both.clock.tick(1)
        us.witnessed(nl, ee)
    ee.sync(us)
    ee.follow(us)
    stolen = NOW + 66
    change_witness_key(world_on_both, "NL", revoked_at_index=0, suspect_from=stolen)
    adopt(world_on_both, us, ee)
    ee.judge(us)
    for peer in (us, ee):
        with peer.db.read() as session:
            kept = session.scalars(
                select(ConfirmationRow.at).where(
                    ConfirmationRow.log_id == peer.log(us).id, ConfirmationRow.size > 0
                )
            ).all()
        assert sorted(kept) == list(range(NOW + 1, stolen)), peer.state


def test_what_was_cosigned_under_a_key_that_is_revoked_confirms_nothing_from_then_on(five: World) -> None:
    """Two of three had cosigned, one of them under a stolen key. The third comes after the revocation."""
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, jp)
    us.sync(ee)
    assert {row.state for row in cosignatures(us)} == {"US", "JP"}
    change_witness_key(five, "JP", revoked_at_index=0, suspect_from=NOW)
    adopt(five, ee, us, nl, jp)
    for mirror in (us, jp):
        mirror.judge(ee)
    assert cosignatures(us, by="JP") == []
    ee.witnessed(nl)
    us.sync(ee)
    for peer in (ee, us):
        assert {row.state for row in cosignatures(peer)} == {"US", "NL"}
        assert peer.log("EE").confirmed_size == 0
    assert len(cosignatures(jp, by="JP")) == 1  # a witness never forgets what it cosigned itself


def test_a_cosignature_from_before_the_theft_stays_and_one_given_again_after_it_goes(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    five.clock.tick(REFRESH_S)
    ee.witnessed(jp)
    (line,) = cosignatures(ee, by="JP")
    assert line.fresh_at == NOW + REFRESH_S
    change_witness_key(five, "JP", revoked_at_index=0, suspect_from=NOW + 1)
    adopt(five, ee)
    (line,) = cosignatures(ee, by="JP")
    assert (line.timestamp, line.fresh_at, line.fresh_line) == (NOW, None, None)


def test_a_cosignature_under_the_next_key_stays_where_the_first_was_revoked(five: World) -> None:
    ee, us, nl, jp = everybody(five)
    issue(ee, "first")
    ee.witnessed(us, nl, jp)
    five.clock.tick(REFRESH_S)
    file = jp.settings.keys_dir / "witness-2.key"
    create_key(file, "JP/witness/2", "witness")
    (key,) = five.roster.keys_of("JP", "witness")
    fresh = replace(
        key, kid="JP/witness/2", key=read_card(card_path(file)).key, active_from=key.active_from + 1
    )
    five.change_state("JP", keys=(*five.roster.states["JP"].keys, fresh))
    jp.node._adopted = None  # and looks which of its keys the roster lists
    adopt(five, ee, jp)
    assert jp.node.keys.witness.public == fresh.key
    ee.witnessed(jp)
    (line,) = cosignatures(ee, by="JP")
    again = line.fresh_line
    assert again is not None
    five.change_state(
        "JP",
        keys=tuple(
            replace(k, revoked_at_index=0) if k.kid == key.kid else k for k in five.roster.states["JP"].keys
        ),
    )
    adopt(five, ee)
    (line,) = cosignatures(ee, by="JP")
    assert (line.timestamp, line.line, line.fresh_line) == (NOW + REFRESH_S, again, None)


def cosignatures(peer: Peer, by: str | None = None) -> Sequence[CosignatureRow]:
    """What a node keeps of cosignatures over EE's log."""
    of_log = select(CosignatureRow).where(CosignatureRow.log_id == peer.log("EE").id)
    with peer.db.read() as session:
        return session.scalars(of_log if by is None else of_log.where(CosignatureRow.state == by)).all()
