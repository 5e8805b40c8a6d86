"""One truth per size: whatever races, crashes or changes, a second root for a size is never signed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import update

from app.db import Database
from app.domain.errors import LogCorrupt
from app.domain.keys import PublicKey
from app.domain.statement import hash_leaf
from app.models import LogRow
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.merkle import Frontier, tree_root
from app.tlog.note import VerifierKey
from app.tlog.publish import publish_step
from app.tlog.store import node_reader
from tests.db.own_log import LOG, ORIGIN, check_whole, heads, log_row, notice, open_log, record
from tests.federation.world import NOW, seeded


class Watched:
    """The log key; remembers what it signed, and can do something else first."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.signed: list[bytes] = []
        self.before = before

    @property
    def public(self) -> PublicKey:
        return LOG.public

    def sign(self, message: bytes) -> bytes:
        before, self.before = self.before, lambda: None
        before()
        self.signed.append(message)
        return LOG.sign(message)


class Crash(Exception):
    """The process ends here."""


@pytest.fixture
def log(log_url: str) -> Iterator[tuple[Database, int]]:
    db, log_id = open_log(log_url)
    yield db, log_id
    db.dispose()


def publish(db: Database, log_id: int, signer: Watched) -> Checkpoint | None:
    return publish_step(db, log_id, signer, now=NOW * 1000)


def assert_one_truth(db: Database, log_id: int, *signers: Watched) -> None:
    """Every head that was signed is the root of the leaves, and no size has two."""
    roots: dict[int, bytes] = {}
    for message in (m for signer in signers for m in signer.signed):
        head = Checkpoint.parse(message)
        assert roots.setdefault(head.size, head.root) == head.root
    with db.read() as session:
        for size, head_row in heads(db, log_id).items():
            root = tree_root(node_reader(session, log_id), size) if size else Frontier().root()
            assert head_row.root == root == roots.get(size, root)
            if head_row.note is not None:
                assert (
                    open_checkpoint(head_row.note, [VerifierKey(ORIGIN, LOG.public)], ORIGIN)[0].root == root
                )


def test_what_is_committed_is_signed_once(log: tuple[Database, int]) -> None:
    db, log_id = log
    signer = Watched()
    record(db, log_id, [notice(), notice()])
    assert publish(db, log_id, signer).size == 2  # type: ignore[union-attr]
    assert publish(db, log_id, signer) is None
    assert len(signer.signed) == 1
    row = log_row(db, log_id)
    assert (row.head_size, row.size) == (2, 2)
    assert_one_truth(db, log_id, signer)


def test_a_head_under_a_revoked_key_is_signed_again_once_with_the_same_root(
    log: tuple[Database, int],
) -> None:
    db, log_id = log
    record(db, log_id, [notice()])
    head = publish(db, log_id, Watched())
    following = seeded("the next log key")
    for revoked in ((), [following.public]):
        assert publish_step(db, log_id, following, now=NOW * 1000, revoked=revoked) is None
    assert publish_step(db, log_id, following, now=NOW * 1000, revoked=[LOG.public]) == head
    assert publish_step(db, log_id, following, now=NOW * 1000, revoked=[LOG.public]) is None
    for note in (log_row(db, log_id).head_note, heads(db, log_id)[1].note):
        assert note is not None
        assert open_checkpoint(note, [VerifierKey(ORIGIN, following.public)], ORIGIN)[0] == head


def test_an_empty_log_is_signed_too(log: tuple[Database, int]) -> None:
    db, log_id = log
    assert publish(db, log_id, Watched()).size == 0  # type: ignore[union-attr]


def test_a_slow_publisher_does_not_take_the_head_back(log: tuple[Database, int]) -> None:
    """While it signs size 1, another appends and publishes size 2."""
    db, log_id = log
    other = Watched()

    def meanwhile() -> None:
        record(db, log_id, [notice()])
        assert publish(db, log_id, other).size == 2  # type: ignore[union-attr]

    record(db, log_id, [notice()])
    slow = Watched(meanwhile)
    assert publish(db, log_id, slow).size == 1  # type: ignore[union-attr]
    row = log_row(db, log_id)
    assert (row.head_size, row.claimed_size) == (2, 2)
    assert sorted(heads(db, log_id)) == [1, 2]
    assert_one_truth(db, log_id, slow, other)


def test_publishers_that_race_sign_one_root_a_size(log: tuple[Database, int]) -> None:
    db, log_id = log
    signers = [Watched() for _ in range(4)]
    failures: list[BaseException] = []

    def run(signer: Watched) -> None:
        try:
            for _ in range(6):
                record(db, log_id, [notice()])
                publish(db, log_id, signer)
        except Exception as error:  # noqa: BLE001 - whatever a thread raises, the test shows
            failures.append(error)

    threads = [threading.Thread(target=run, args=(signer,)) for signer in signers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    publish(db, log_id, signers[0])
    assert check_whole(db, log_id) == log_row(db, log_id).head_size == 24
    assert_one_truth(db, log_id, *signers)


def test_a_crash_between_decision_and_signature_leads_to_the_same_root(log: tuple[Database, int]) -> None:
    db, log_id = log
    record(db, log_id, [notice()])

    def crash() -> None:
        raise Crash

    with pytest.raises(Crash):
        publish(db, log_id, Watched(crash))
    assert heads(db, log_id)[1].note is None
    assert log_row(db, log_id).head_note is None
    signer = Watched()
    assert publish(db, log_id, signer).size == 1  # type: ignore[union-attr]
    assert_one_truth(db, log_id, signer)


def test_a_crash_between_append_and_publish_leaves_the_publishing_to_the_next_start(
    log: tuple[Database, int], log_url: str
) -> None:
    db, log_id = log
    record(db, log_id, [notice()])
    again = Database(log_url)
    try:
        assert log_row(again, log_id).head_size == 0
        assert publish(again, log_id, Watched()).size == 1  # type: ignore[union-attr]
    finally:
        again.dispose()


@pytest.mark.parametrize("signed_before", [True, False], ids=["signed", "decided only"])
def test_leaves_changed_under_a_head_are_not_signed_for(
    log: tuple[Database, int], signed_before: bool
) -> None:
    """Somebody put other leaves where signed ones were, with everything about them right, and forgot the heads."""
    db, log_id = log
    record(db, log_id, [notice(), notice()])

    def crash() -> None:
        raise Crash

    if signed_before:
        publish(db, log_id, Watched())
    else:
        with pytest.raises(Crash):
            publish(db, log_id, Watched(crash))
    other = Frontier().extend([hash_leaf(b"one"), hash_leaf(b"another")]).to_bytes()
    with db.write() as session:
        session.execute(
            update(LogRow).where(LogRow.id == log_id).values(frontier=other, head_size=0, head_note=None)
        )
    signer = Watched()
    with pytest.raises(LogCorrupt):
        publish(db, log_id, signer)
    assert signer.signed == []
    assert log_row(db, log_id).head_note is None


def test_a_size_that_is_not_its_frontiers_stops_everything(log: tuple[Database, int]) -> None:
    db, log_id = log
    record(db, log_id, [notice(), notice()])
    with db.write() as session:
        session.execute(update(LogRow).where(LogRow.id == log_id).values(size=1))
    signer = Watched()
    with pytest.raises(LogCorrupt):
        publish(db, log_id, signer)
    with pytest.raises(LogCorrupt):
        record(db, log_id, [notice()])
    assert signer.signed == []
