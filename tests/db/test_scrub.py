"""What was erased is not legible in the database's files either."""

from __future__ import annotations

from pathlib import Path

from app import bodies
from app.models import Base
from tests import examples
from tests.federation.world import World

BODIES = Base.metadata.tables["bodies"]
CANARY = "Kanaarilind Silmapiiri"


def legible(folder: Path) -> list[str]:
    """Files below the node's folder in which the canary stands, in either of the two ways it is stored as text."""
    words = (CANARY.encode(), CANARY.lower().encode())
    return [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


def test_an_erased_notice_is_gone_from_the_file_and_its_write_ahead_log(world: World) -> None:
    ee, nl = world.make("EE"), world.make("NL")
    signed = ee.must_post(ee.officer.sign(examples.denied_end_user(title=CANARY)))
    for n in range(30):  # neighbours, so that the erased one lies in a page that goes on being used
        ee.must_post(ee.officer.sign(examples.denied_end_user(title=f"Neighbour {n}")))
    nl.sync(ee)
    assert legible(ee.settings.data_dir)
    assert legible(nl.settings.data_dir)
    ee.must_post(ee.officer.sign(None, "erase", ref=signed.hash))
    nl.sync(ee)
    for peer in (ee, nl):
        assert peer.db.scrub(("notices",))
        assert legible(peer.settings.data_dir) == []


def test_a_copy_of_the_tables_made_before_is_worth_nothing_without_the_key(world: World) -> None:
    us = world.make("US")
    signed = us.must_post(us.officer.sign(examples.denied_end_user(issuer="US", title=CANARY)))
    with us.db.read() as session:
        copied = {row.part: bytes(row.sealed) for row in session.execute(BODIES.select())}
    us.must_post(us.officer.sign(None, "erase", ref=signed.hash))
    with us.db.write() as session:  # the old copy comes back, as from a backup that keeps keys apart
        session.execute(
            BODIES.insert(),
            [
                {"log_id": us.node.log_id, "idx": 0, "part": part, "sealed": sealed, "held_at": 0}
                for part, sealed in copied.items()
            ],
        )
    with us.db.read() as session:
        assert bodies.opened(session, us.node.log_id, [0]) == {}
    us.db.scrub(("bodies", "body_keys"))
    assert not any(CANARY.encode() in sealed for sealed in copied.values())
