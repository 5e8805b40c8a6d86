"""Backup and restore: everything comes back, on either engine; nothing is signed twice; what was erased stays erased."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app import backup as backups
from app import migrations
from app.backup import BackupRefused, NotEmpty, Passphrase
from app.cli.backup import _fold
from app.db import Database
from app.models import CosignatureRow
from tests import examples
from tests.federation.test_evidence import post
from tests.federation.test_startup import heads, is_open
from tests.federation.world import Peer, World, dump, everything

PASSPHRASE = Passphrase(b"correct horse battery staple")


def write(peer: Peer, folder: Path) -> tuple[Path, Path]:
    """Back a running node up; main file and key file."""
    folder.mkdir(exist_ok=True)
    paths = folder / "main.backup", folder / "keys.backup"
    revision = migrations.current_revision(peer.db) or ""
    for path, kind in zip(paths, (backups.MAIN, backups.KEYS), strict=True):
        backups.write(peer.db, path, kind, PASSPHRASE, now=peer.world.clock(), revision=revision)
    return paths


def restored(world: World, main: Path, keys: Path | None, url: str | None = None) -> Peer:
    """A node of US on an empty database that a backup was restored into."""
    settings = world.settings("US", f"US-restored-{len(world.peers)}")
    for file in settings.data_dir.glob("verbale.db*"):
        file.unlink()
    (settings.data_dir / "first-start").unlink(missing_ok=True)
    if url is not None:
        settings = replace(settings, database_url=url)
    db = Database(settings.database)
    backups.restore(db, main, keys, PASSPHRASE, origin=settings.origin, now=world.clock())
    _fold(db, world.roster, world.clock())
    db.dispose()
    world.peers[settings.data_dir.name] = peer = Peer(world, settings)
    return peer


def life(world: World) -> tuple[Peer, Peer, Peer]:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    post(ee, "of EE")
    wrong = us.must_post(
        us.officer.sign(examples.denied_end_user(issuer="US", title="names the wrong party"))
    )
    us.must_post(
        us.officer.sign(
            examples.denied_end_user(issuer="US", title="for EE alone", tlp="TLP:RED", audience=["EE"])
        )
    )
    us.sync(ee)
    for peer in (ee, nl):
        peer.sync(us)
    us.wrong = wrong  # type: ignore[attr-defined]
    return us, ee, nl


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_restored_node_is_what_it_was_and_goes_on(
    world: World, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    us, ee, nl = life(world)
    main, keys = write(us, tmp_path / "b")
    before = {of: dump(us.db, log_id=us.log(of).id) for of in ("US", "EE")}
    signed = heads(us)
    us.close()
    url = None
    if target == "postgresql":
        fresh: Callable[[str | None], str] = request.getfixturevalue("fresh_pg_database")
        url = fresh(None)
    us = restored(world, main, keys, url)
    assert {of: dump(us.db, log_id=us.log(of).id) for of in ("US", "EE")} == before
    assert us.request("GET", "/v1/notices").json()["type"].endswith("#node-restored")
    assert us.request("GET", "/log/1/checkpoint").status_code == 200
    us.publish()
    assert heads(us) == signed
    nl.close()
    us.node.gate.step()
    assert not is_open(us)  # after a restore all witnesses have to answer
    nl.open()
    us.followed(ee)
    us.node.gate.step()
    assert is_open(us)
    assert us.titles() == ["for EE alone", "names the wrong party", "of EE", "one"] or len(us.titles()) == 4
    post(us, "after")
    us.publish()
    for peer in (ee, nl):
        peer.sync(us)
        assert (peer.titles(limit="1"), peer.log(us).status) == (["after"], "ok")


def test_what_was_erased_after_the_backup_is_gone_before_anything_is_shown(
    world: World, tmp_path: Path
) -> None:
    us, ee, nl = life(world)
    old, _ = write(us, tmp_path / "old")
    us.must_post(us.officer.sign(None, "erase", ref=us.wrong.hash))  # type: ignore[attr-defined]
    for peer in (ee, nl):
        peer.sync(us)
    _, newest = write(us, tmp_path / "new")
    us.close()
    us = restored(world, old, newest)
    # The key of the erased body is in no key file that was written since: it cannot even be opened.
    assert not _holds(us, "names the wrong party")
    us.followed(ee)
    us.node.gate.step()
    assert is_open(us)
    assert us.log().size == 4
    assert us.statuses() == {"one": "active", "for EE alone": "active", "of EE": "active"}


def test_even_an_old_key_file_brings_no_erased_body_to_anybody(world: World, tmp_path: Path) -> None:
    us, ee, nl = life(world)
    main, keys = write(us, tmp_path / "old")
    us.must_post(us.officer.sign(None, "erase", ref=us.wrong.hash))  # type: ignore[attr-defined]
    for peer in (ee, nl):
        peer.sync(us)
    us.close()
    us = restored(world, main, keys)
    assert _holds(us, "names the wrong party")
    for path in ("/v1/notices", "/v1/feed", "/docs"):
        assert us.request("GET", path).status_code == 503
    assert us.request("POST", "/bodies", content=b"{}").status_code == 503
    us.followed(ee)
    us.node.gate.step()
    assert us.request("GET", "/v1/notices").status_code == 200
    assert not _holds(us, "names the wrong party")


def _holds(peer: Peer, text: str) -> bool:
    return any(text in repr(row) for rows in everything(peer.db).values() for row in rows)


def test_bodies_without_the_key_file_come_from_the_others(world: World, tmp_path: Path) -> None:
    us, ee, _ = life(world)
    main, _ = write(us, tmp_path / "b")
    us.close()
    us = restored(world, main, None)
    us.followed(ee)
    us.node.gate.step()
    us.node.look_after()
    us.judge(ee)
    assert set(us.titles()) == {"for EE alone", "names the wrong party", "of EE", "one"}


def test_every_flipped_byte_is_refused(world: World, tmp_path: Path) -> None:
    us = world.make("US")
    post(us, "one")
    main, keys = write(us, tmp_path / "b")
    for path, kind in ((main, backups.MAIN), (keys, backups.KEYS)):
        raw = path.read_bytes()
        header = raw.index(b"\n") + 1
        spots = {
            *range(0, header, 7),
            *range(header, min(header + 40, len(raw))),
            *range(header, len(raw), 211),
            len(raw) - 1,
        }
        damaged = tmp_path / "damaged"
        for at in sorted(spots):
            damaged.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            with pytest.raises(BackupRefused):
                backups.read(damaged, kind, PASSPHRASE)
        for cut in (0, 1, header - 1, header, header + 3, header + 100, len(raw) - 1):
            damaged.write_bytes(raw[:cut])
            with pytest.raises(BackupRefused):
                backups.read(damaged, kind, PASSPHRASE)
        for more in (b"\x00", raw[header:]):
            damaged.write_bytes(raw + more)
            with pytest.raises(BackupRefused):
                backups.read(damaged, kind, PASSPHRASE)
        with pytest.raises(BackupRefused):
            backups.read(path, kind, Passphrase(b"another passphrase"))
        with pytest.raises(BackupRefused):
            backups.read(path, backups.KEYS if kind == backups.MAIN else backups.MAIN, PASSPHRASE)
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_cut_off_between_two_chunks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        writer = backups._Writer(file, backups.MAIN, PASSPHRASE)
        writer.write(os.urandom(3 * backups.CHUNK))
        writer.close()
    raw = path.read_bytes()
    with path.open("rb") as file:
        whole = list(backups._chunks(file, backups.MAIN, PASSPHRASE))
    assert [len(one) for one in whole[:2]] == [backups.CHUNK, backups.CHUNK]
    header = raw.index(b"\n") + 1
    sealed = 4 + backups.CHUNK + backups.TAG
    first, second = raw[header : header + sealed], raw[header + sealed : header + 2 * sealed]
    for bad in (
        raw[: header + sealed],
        raw[: header + 2 * sealed],
        raw[:header] + second + first + raw[header + 2 * sealed :],
    ):
        path.write_bytes(bad)
        with path.open("rb") as file, pytest.raises(BackupRefused):
            list(backups._chunks(file, backups.MAIN, PASSPHRASE))


def test_a_restored_witness_cosigns_nothing_before_it_knows_what_it_cosigned(
    world: World, tmp_path: Path
) -> None:
    us, ee, nl = life(world)
    nl.sync(ee)
    main, keys = write(us, tmp_path / "b")
    us.close()
    us = restored(world, main, keys)
    post(ee, "after the backup")
    ee.publish()
    us.follow(ee)
    assert _cosigned(us, ee) == 1
    us.node.gate.step()
    us.follow(ee)
    assert _cosigned(us, ee) == 2


def _cosigned(peer: Peer, of: Peer) -> int:
    """The largest size of another's log that this node's witness cosigned."""
    with peer.db.read() as session:
        found = session.execute(
            select(func.max(CosignatureRow.size)).where(
                CosignatureRow.log_id == peer.log(of).id, CosignatureRow.witness == peer.node.witness.name
            )
        ).scalar_one()
    return int(found or 0)


def test_nothing_secret_is_readable_in_a_backup_and_keys_of_bodies_are_apart(
    world: World, tmp_path: Path
) -> None:
    us, _, _ = life(world)
    main, keys = write(us, tmp_path / "b")
    assert b"for EE alone" not in main.read_bytes() + keys.read_bytes()
    kept = set(backups.read(main, backups.MAIN, PASSPHRASE).tables)
    assert kept.isdisjoint({"body_keys", "entries", "notices", "notice_terms", "nonces"})
    assert set(backups.read(keys, backups.KEYS, PASSPHRASE).tables) == {"body_keys"}
    rows: list[str] = []
    backups.read(main, backups.MAIN, PASSPHRASE, lambda row: rows.append(json.dumps(row[2], default=str)))
    assert not any("for EE alone" in row for row in rows)


def test_a_backup_is_never_restored_over_anything_or_into_another_node(world: World, tmp_path: Path) -> None:
    us, ee, _ = life(world)
    main, keys = write(us, tmp_path / "b")
    before = everything(us.db)
    with pytest.raises(NotEmpty):
        backups.restore(us.db, main, keys, PASSPHRASE, origin=us.node.origin, now=1)
    assert everything(us.db) == before
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(BackupRefused, match="settings are of"):
        backups.restore(empty, main, keys, PASSPHRASE, origin=ee.node.origin, now=1)
    empty.dispose()
