"""Both doors under attack: what is refused locally is flagged remotely, with the same code, and nothing stops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.domain.encoding import b64u_encode
from app.domain.roster import RosterKey
from app.domain.statement import Part, hash_leaf
from app.tlog.fsck import Keys, check_log
from app.tlog.merkle import Frontier, tree_root
from app.tlog.store import node_reader, read_leaves
from tests import examples
from tests.federation.attacks import ATTACKS, ES256, Attack, Stage, list_keys, shows_in
from tests.federation.world import DAY, NOW, Officer, Peer, Signed, World, everything, seeded, wire

EACH = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))


# ── (a) the local door ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class LocalDoor:
    peer: Peer
    stage: Stage


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[LocalDoor]:
    """Estonia's node, with some good notices in its log."""
    world = World(tmp_path_factory.mktemp("local"), templates)
    try:
        ee = world.make("EE")
        list_keys(world, "EE")
        stage = Stage(ee.officer, Officer("US", world.officer_key("US")))
        for signed in stage.standing:
            ee.must_post(signed)
        yield LocalDoor(ee, stage)
    finally:
        world.close()


def assert_refused(door: LocalDoor, body: Any, code: str, status: int) -> dict[str, Any]:
    """Post it; the answer is the right problem, and the node holds exactly what it held before."""
    before = everything(door.peer.db)
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    response = door.peer.request(
        "POST", "/v1/notices", content=content, headers={"content-type": "application/json"}
    )
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["type"].partition("#")[2]) == (status, code), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert everything(door.peer.db) == before
    return problem


@EACH
def test_the_local_door_refuses(local: LocalDoor, attack: Attack) -> None:
    leaf, parts = attack.build(local.stage)
    assert_refused(local, wire(leaf, parts), attack.code, attack.status)


def test_a_batch_refuses_bad_lines_only(local: LocalDoor) -> None:
    """Every attack between two good notices, in one batch."""
    before = local.peer.log().size
    good = [local.stage.officer.sign(local.stage.main()) for _ in range(len(ATTACKS) + 1)]
    lines = [good[0].wire()]
    for attack, following in zip(ATTACKS.values(), good[1:], strict=True):
        lines += [wire(*attack.build(local.stage)), following.wire()]
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    response = local.peer.request("POST", "/v1/notices/batch", content=body)
    answers = [orjson.loads(line) for line in response.content.splitlines()]
    assert [a["line"] for a in answers] == list(range(1, len(lines) + 1))
    assert [a["receipt"]["index"] for a in answers[::2]] == list(range(before, before + len(good)))
    refused = [(a["status"], a["problem"]["type"].partition("#")[2]) for a in answers[1::2]]
    assert refused == [(attack.status, attack.code) for attack in ATTACKS.values()]
    assert local.peer.log().size == before + len(good)


def _with(part: dict[str, str], **changes: Any) -> Any:
    return {name: value for name, value in (part | changes).items() if value is not ...}


WIRE_ATTACKS: dict[str, tuple[Any, str]] = {
    "no_json": (lambda w: b"statement=1", "malformed-json"),
    "nothing_at_all": (lambda w: b"", "malformed-json"),
    "bad_utf8": (lambda w: orjson.dumps(w).replace(b'"parts"', b'"parts\xff"'), "malformed-json"),
    "nan": (lambda w: orjson.dumps(w).replace(b'"main":', b'"x":NaN,"main":'), "malformed-json"),
    "duplicate_statement": (
        lambda w: b'{"statement":"x",' + orjson.dumps(w).removeprefix(b"{"),
        "malformed-json",
    ),
    "duplicate_part": (
        lambda w: orjson.dumps(w).replace(b'"parts":{', b'"parts":{"main":{"salt":"","content":""},'),
        "malformed-json",
    ),
    "deep_nesting": (lambda w: b"[" * 50_000 + b"]" * 50_000, "malformed-json"),
    "a_list": (lambda w: [w], "malformed-request"),
    "no_parts_member": (lambda w: {"statement": w["statement"]}, "malformed-request"),
    "unknown_member": (lambda w: w | {"force": True}, "malformed-request"),
    "statement_that_is_no_text": (lambda w: w | {"statement": 7}, "malformed-request"),
    "statement_beyond_ascii": (lambda w: w | {"statement": w["statement"] + "é"}, "malformed-request"),
    "part_without_salt": (
        lambda w: w | {"parts": {"main": _with(w["parts"]["main"], salt=...)}},
        "malformed-request",
    ),
    "padded_content": (
        lambda w: (
            w | {"parts": {"main": _with(w["parts"]["main"], content=w["parts"]["main"]["content"] + "=")}}
        ),
        "non-canonical-encoding",
    ),
    "standard_alphabet": (
        lambda w: w | {"parts": {"main": _with(w["parts"]["main"], salt="+/" + "A" * 41)}},
        "non-canonical-encoding",
    ),
    "spare_bits_in_the_salt": (
        lambda w: w | {"parts": {"main": _with(w["parts"]["main"], salt="A" * 42 + "B")}},
        "non-canonical-encoding",
    ),
    "seventeen_parts": (
        lambda w: w | {"parts": {f"p{n}": w["parts"]["main"] for n in range(17)}},
        "malformed-request",
    ),
}


@pytest.mark.parametrize("name", WIRE_ATTACKS)
def test_the_local_door_refuses_what_is_no_signed_notice(local: LocalDoor, name: str) -> None:
    build, code = WIRE_ATTACKS[name]
    assert_refused(local, build(local.stage.officer.sign(local.stage.main()).wire()), code, 422)


def test_ten_mebibytes_are_too_large(local: LocalDoor) -> None:
    signed = local.stage.officer.sign(local.stage.main()).wire()
    signed["parts"]["main"]["content"] = "A" * 10 * 2**20
    assert_refused(local, signed, "too-large", 413)


def test_no_bit_of_a_posted_leaf_can_be_flipped(local: LocalDoor) -> None:
    """A sample over the whole leaf, over HTTP; `tests/domain/test_judge.py` flips every one."""
    signed = local.stage.officer.sign(local.stage.main())
    before = everything(local.peer.db)
    size = len(signed.leaf)
    for position in [*range(0, size, 37), signed.leaf.index(b"."), signed.leaf.rindex(b"."), size - 1]:
        changed = bytearray(signed.leaf)
        changed[position] ^= 1
        response = local.peer.post(wire(bytes(changed), signed.parts))
        assert 400 <= response.status_code < 500, position
    assert everything(local.peer.db) == before
    assert local.peer.post(signed).status_code == 201


def test_the_same_bytes_again_get_the_same_receipt(local: LocalDoor) -> None:
    signed = local.stage.officer.sign(local.stage.main())
    first = local.peer.post(signed)
    before = everything(local.peer.db)
    again = local.peer.post(signed)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json() == {
        "id": signed.id,
        "index": local.peer.log().size - 1,
        "leaf_hash": b64u_encode(signed.hash),
        "origin": local.peer.node.origin,
    }
    assert everything(local.peer.db) == before


def test_the_same_line_twice_in_one_batch_is_logged_once(local: LocalDoor) -> None:
    line = orjson.dumps(local.stage.officer.sign(local.stage.main()).wire())
    response = local.peer.request("POST", "/v1/notices/batch", content=line + b"\n" + line + b"\n")
    first, again = (orjson.loads(a) for a in response.content.splitlines())
    assert (first["status"], again["status"]) == (201, 200)
    assert first["receipt"] == again["receipt"]


def test_sixty_posts_at_once_stay_contiguous_and_each_is_answered_once(world_on_both: World) -> None:
    ee = world_on_both.make("EE")
    bodies = [orjson.dumps(ee.officer.sign(examples.best_practice(issuer="EE")).wire()) for _ in range(60)]
    url = f"{ee.settings.public_url}/v1/notices"
    requests = [httpx.Request("POST", url, content=body) for body in bodies]
    first, again = (world_on_both.network.gather(requests) for _ in range(2))
    assert {r.status_code for r in first} == {201}
    assert sorted(r.json()["index"] for r in first) == list(range(60))
    assert {r.status_code for r in again} == {200}
    assert [r.json() for r in again] == [r.json() for r in first]
    assert ee.log().size == 60


def test_one_notice_posted_by_sixty_at_once_is_logged_once(world: World) -> None:
    ee = world.make("EE")
    body = orjson.dumps(ee.officer.sign(examples.best_practice(issuer="EE")).wire())
    url = f"{ee.settings.public_url}/v1/notices"
    answers = world.network.gather([httpx.Request("POST", url, content=body) for _ in range(60)])
    assert sorted(r.status_code for r in answers) == [200] * 59 + [201]
    assert len({r.content for r in answers}) == 1
    assert ee.log().size == 1


def test_a_p256_key_signs_as_well(local: LocalDoor) -> None:
    signed = local.stage.officer.sign(local.stage.main(), signer=ES256, kid="EE/cp/5")
    assert local.peer.post(signed).status_code == 201


def test_a_suspended_state_cannot_issue(world: World) -> None:
    ee = world.make("EE")
    world.change_state("EE", status="suspended")
    response = ee.post(ee.officer.sign(examples.denied_end_user()))
    assert (response.status_code, response.json()["type"].partition("#")[2]) == (403, "not-allowed")
    assert ee.log().size == 0


# ── (b) the remote door ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class RemoteDoor:
    """NL's mirror of a log into which the United States' node put one of every attack, past its own door."""

    origin: Peer
    mirror: Peer
    stage: Stage
    placed: dict[str, int]
    faults: dict[int, str]
    parts_of_faults: dict[int, str]
    last: Signed

    def index(self, name: str) -> int:
        return self.placed[name]


def _mirror_all(world: World) -> RemoteDoor:
    us, nl = world.make("US"), world.make("NL")
    list_keys(world, "US")
    stage = Stage(us.officer, Officer("EE", world.officer_key("EE")))
    early = us.officer.sign(
        stage.main(title="Before the revocation"), kid="US/cp/4", signer=seeded("US/cp/4")
    )
    leaves = [(s.leaf, s.parts) for s in (early, *stage.standing)]
    placed = {"early": 0} | {s.id: n for n, s in enumerate(stage.standing, 1)}
    for attack in ATTACKS.values():
        placed[attack.name] = len(leaves)
        leaves.append(attack.build(stage))
    extra: dict[str, tuple[bytes, dict[str, Part]]] = {
        "replayed": (stage.good.leaf, stage.good.parts),
        "replayed_erasure": (stage.erasure.leaf, {}),
        "no_bytes": (b"", {}),
        "no_text": (bytes(range(128, 256)) * 3, {}),
        "largest": (b"\x00" * 65_535, {}),
    }
    for name, leaf in extra.items():
        placed[name] = len(leaves)
        leaves.append(leaf)
    last = us.officer.sign(stage.main(title="After all of that"))
    placed["last"] = len(leaves)
    leaves.append((last.leaf, last.parts))
    us.smuggle(*leaves)
    nl.sync(us)
    shown = nl.get("/v1/federation/faults", params={"state": "US", "limit": "200"}, headers=nl.token())
    assert shown["next"] is None
    return RemoteDoor(
        us,
        nl,
        stage,
        placed,
        {item["index"]: item["code"] for item in shown["items"]},
        {item["index"]: item["part"] for item in shown["items"]},
        last,
    )


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[RemoteDoor]:
    world = World(tmp_path_factory.mktemp("remote"), templates)
    try:
        yield _mirror_all(world)
    finally:
        world.close()


@EACH
def test_the_remote_door_keeps_and_flags(remote: RemoteDoor, attack: Attack) -> None:
    index = remote.index(attack.name)
    entry = remote.mirror.entry("US", index)
    assert remote.faults.get(index) == shows_in(attack), entry.body_fault_detail or entry.fault_detail
    if shows_in(attack) is not None:
        assert remote.parts_of_faults[index] == attack.mirrored
    if attack.mirrored == "wanted":
        assert (entry.body_state, entry.fault_code) == ("wanted", None)
    if attack.mirrored == "body":
        assert entry.body_state == "held"
    if attack.mirrored == "fine":
        assert (entry.body_state, entry.fault_code, entry.body_fault_code) == ("held", None, None)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("replayed", "leaf-replayed"),
        ("replayed_erasure", "leaf-replayed"),
        ("no_bytes", "malformed-statement"),
        ("no_text", "malformed-statement"),
        ("largest", "malformed-statement"),
    ],
)
def test_the_remote_door_flags_what_no_local_door_can_be_given(
    remote: RemoteDoor, name: str, code: str
) -> None:
    assert remote.faults[remote.index(name)] == code


def test_nothing_else_is_flagged(remote: RemoteDoor) -> None:
    expected = {remote.index(a.name) for a in ATTACKS.values() if shows_in(a) is not None}
    extra = {remote.index(n) for n in ("replayed", "replayed_erasure", "no_bytes", "no_text", "largest")}
    assert remote.faults.keys() == expected | extra


def test_every_flagged_leaf_is_stored_and_hashed_as_it_was_signed_for(remote: RemoteDoor) -> None:
    for peer, of in ((remote.origin, None), (remote.mirror, "US")):
        log = peer.log(of)
        assert log.size == log.judged == log.head_size == len(remote.placed)
        with peer.db.read() as session:
            leaves = read_leaves(session, log.id, 0, log.size)
            root = tree_root(node_reader(session, log.id), log.size)
        assert Frontier().extend([hash_leaf(leaf) for leaf in leaves]).root() == root == log.head_root
    with remote.origin.db.read() as ours, remote.mirror.db.read() as theirs:
        size = len(remote.placed)
        assert read_leaves(ours, remote.origin.log().id, 0, size) == read_leaves(
            theirs, remote.mirror.log("US").id, 0, size
        )


def test_the_mirror_checks_out(remote: RemoteDoor) -> None:
    report = check_log(remote.mirror.db, remote.mirror.log("US").id, Keys.of(remote.mirror.world.roster))
    assert report.difference is None
    assert report.leaves == len(remote.placed)


def test_the_good_notices_before_and_after_are_found(remote: RemoteDoor) -> None:
    titles = remote.mirror.titles(issuer="US", limit="100")
    assert titles[0] == "After all of that"
    assert "Before the revocation" in titles
    assert "Amended title" in titles
    assert "To be withdrawn" not in remote.mirror.titles(issuer="US", status="active", limit="100")
    assert "To be erased" not in titles


def test_no_bad_notice_is_shown(remote: RemoteDoor) -> None:
    shown = {item["id"] for item in remote.mirror.find(issuer="US", limit="200")["items"]}
    good = {s.id for s in remote.stage.standing} | {
        remote.mirror.entry("US", remote.index(n)).id
        for n in ("early", "over_already", "issued_in_2250", "last")
    }
    assert shown <= good
    counted = remote.mirror.find(issuer="US", limit="200")["total"]
    assert counted == len(shown)


def test_the_mirror_is_cosigned_and_in_step_in_spite_of_it_all(remote: RemoteDoor) -> None:
    seen = remote.mirror.federation("US")
    assert (seen["status"], seen["in_step"], seen["error"]) == ("ok", True, None)
    assert {r["state"]: r["size"] for r in seen["receipts"]} == {"NL": len(remote.placed)}
    assert seen["faults"] == sum(part == "statement" for part in remote.parts_of_faults.values())


def test_the_public_is_shown_faults_of_leaves_and_none_of_bodies(remote: RemoteDoor) -> None:
    items = remote.mirror.get("/v1/federation/faults", params={"state": "US", "limit": "200"})["items"]
    assert {item["index"] for item in items} == {
        index for index, part in remote.parts_of_faults.items() if part == "statement"
    }


def test_a_leaf_that_expired_before_it_arrived_is_no_fault_and_not_active(remote: RemoteDoor) -> None:
    index = remote.index("over_already")
    notice = remote.mirror.get(
        f"/v1/notices/{remote.mirror.entry('US', index).id}", headers=remote.mirror.token()
    )
    assert notice["status"] == "expired"


def test_the_same_attacks_at_both_doors_on_postgresql(tmp_path: Path, templates: Path, pg_node: Any) -> None:
    """One pass: the verdicts do not depend on the engine."""
    world = World(tmp_path / "world", templates, database=pg_node)
    try:
        door = _mirror_all(world)
        expected = {door.index(a.name): shows_in(a) for a in ATTACKS.values() if shows_in(a) is not None}
        assert expected.items() <= door.faults.items()
        assert door.mirror.titles(issuer="US")[0] == "After all of that"
        local = LocalDoor(world.make("EE"), Stage(Officer("EE", world.officer_key("EE")), door.stage.officer))
        list_keys(world, "EE")
        for signed in local.stage.standing:
            local.peer.must_post(signed)
        before = everything(local.peer.db)
        for attack in ATTACKS.values():
            response = local.peer.post(wire(*attack.build(local.stage)))
            code = response.json()["type"].partition("#")[2]
            assert (response.status_code, code) == (attack.status, attack.code), attack.name
        assert everything(local.peer.db) == before
    finally:
        world.close()


# ── what happens to a key ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_revoked_from_an_index_on_counts_below_it_and_not_from_it_on(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    signer = seeded("US/cp/2")
    key = RosterKey("US/cp/2", "notices", signer.public, NOW - DAY, revoked_at_index=2)
    world.add_key("US", key)
    leaves = [
        us.officer.sign(examples.denied_end_user(issuer="US"), kid="US/cp/2", signer=signer) for _ in range(4)
    ]
    us.smuggle(*((s.leaf, s.parts) for s in leaves))
    nl.sync(us)
    assert nl.faults(us) == {2: "key-not-active", 3: "key-not-active"}
