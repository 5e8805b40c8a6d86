"""docs/protocol.md and the vectors it quotes: the code makes them, accepts them, and refuses what they call refused."""

import json
import re
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from app.db import Database
from app.domain import lifecycle, statement
from app.domain.commitment import check_opening
from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import InvalidSignature, VerbaleError
from app.domain.judge import judge_body, judge_statement
from app.domain.keys import ALGORITHMS, PublicKey
from app.domain.lifecycle import NoticeState
from app.domain.roster import KEY_USES, Roster, RosterLog, RosterState
from app.domain.signed import read_signed
from app.domain.times import bracket_from
from app.gate import Principal
from app.keyfiles import KID_SEGMENTS, KeyCard, possession_message
from app.replication import bodies, signatures
from app.replication.witness import log_keys
from app.tlog.checkpoint import open_checkpoint
from app.tlog.confirm import (
    ConfirmationRefused,
    Confirmed,
    confirmers,
    decode_history,
    encode_history,
    open_confirmation,
)
from app.tlog.cosignature import CosignerKey, verify_cosignatures
from app.tlog.merkle import Frontier, verify_inclusion
from app.tlog.note import VerifierKey
from app.tlog.policy import Policy
from app.tlog.tiles import encode_bundle
from app.tlog.witness import Submission, judge_submission, parse_cosignatures
from tests.vectors import generate_protocol as generator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
AT = generator.AT


def vector(name: str) -> Any:
    return json.loads((ROOT / "tests" / "vectors" / name).read_text(encoding="utf-8"))


STATEMENT, LOG, REQUEST, CARD, TIME = (
    vector(f"protocol/{name}.json") for name in ("statement", "log", "request", "card", "time")
)
SAID = STATEMENT["statements"]
ROSTER = generator.roster()


# ── the page quotes the vectors ───────────────────────────────────────────────────────────────────────────────────

QUOTED = re.findall(r"^```\w+ vector=(\S+) (\S+)\n(.*?)\n```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("file", "path", "quoted"), QUOTED, ids=[f"{f} {p}" for f, p, _ in QUOTED])
def test_a_block_of_the_page_is_in_the_vectors_as_it_stands(file: str, path: str, quoted: str) -> None:
    value = vector(file)
    for step in path.split("."):
        value = value[step]
    text = (value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))).rstrip("\n")
    pieces = [re.escape(piece) for piece in quoted.split("…")]
    assert re.fullmatch(".+".join(pieces), text, re.DOTALL), text


def test_the_page_quotes_every_file_of_vectors() -> None:
    assert {file for file, _, _ in QUOTED} == {
        f"protocol/{n}.json" for n in ("statement", "log", "request", "card", "time")
    }


def test_the_page_names_every_kind_use_and_algorithm() -> None:
    for word in (*statement.KINDS, *KEY_USES, *ALGORITHMS):
        assert f"`{word}`" in PAGE
    assert KID_SEGMENTS["notices"] == "cp"
    assert all(KID_SEGMENTS[use] == use for use in KEY_USES if use != "notices")


def test_the_page_gives_the_limits_of_the_code() -> None:
    for limit in (statement.MIN_LEAF_BYTES, statement.MAX_LEAF_BYTES, bodies.MAX_ASKED, signatures.WINDOW_S):
        assert f"{limit:,}" in PAGE
    assert statement._ORIGIN.pattern in PAGE
    assert f"at most {statement.MAX_PARTS} objects" in PAGE
    assert statement.MAX_TIME == 2**40


def test_the_page_says_of_each_kind_who_signs_it() -> None:
    from app.domain.judge import _USES

    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    told = {
        kind: (ref.startswith("required"), parts != "none", tuple(re.findall(r"`(\w+)`", uses)))
        for kinds, ref, parts, uses in rows
        for kind in re.findall(r"`(\w+)`", kinds)
        if kind in statement.KINDS
    }
    assert told == {
        kind: (kind in statement.KINDS_WITH_REF, kind not in statement.KINDS_WITHOUT_PARTS, _USES[kind])
        for kind in statement.KINDS
    }


def test_the_page_gives_the_quorum_of_every_size_it_names() -> None:
    sizes, quorums = re.findall(r"^\| ([nq]) \| (.*) \|$", PAGE, re.MULTILINE)
    for n, q in zip(sizes[1].split(" | "), quorums[1].split(" | "), strict=True):
        states = {
            f"{i:02}": RosterState(f"{i:02}", "", logs=(RosterLog(f"s{i}.example/log/1", 1, ""),))
            for i in range(int(n))
        }
        assert Roster(1, "", 0, states).quorum() == int(q), n


def test_every_code_of_the_judging_table_is_explained() -> None:
    problems = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
    for code in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", PAGE.split("## 6.")[1].split("## 7.")[0]):
        assert f"## {code}\n" in problems, code


# ── the vectors and the code ──────────────────────────────────────────────────────────────────────────────────────


def test_the_generator_still_makes_the_committed_vectors() -> None:
    made = generator.vectors()
    committed = {name: (generator.FOLDER / name).read_text(encoding="utf-8") for name in made}
    assert made == committed


@pytest.mark.parametrize("name", SAID)
def test_a_statement_is_read_as_its_texts_say(name: str) -> None:
    said = SAID[name]
    read = statement.parse(said["leaf"].encode())
    assert b64u_decode(said["leaf"].split(".")[0]).decode() == said["protected"]
    assert b64u_decode(said["leaf"].split(".")[1]).decode() == said["payload"]
    assert b64u_encode(read.leaf_hash) == said["leaf_hash"]
    assert b64u_encode(read.signature) == said["signature"]
    key = STATEMENT["keys"][read.kid]
    PublicKey.from_text(key["alg"], key["public"]).verify(read.signature, read.signing_input)
    assert [p.name for p in read.parts] == list(said["parts"])
    for part in read.parts:
        opened = said["parts"][part.name]
        content = b64u_decode(opened["content"])
        assert content.decode() == opened["text"]
        assert b64u_encode(part.commitment) == opened["commitment"]
        check_opening(part.commitment, b64u_decode(opened["salt"]), read.id, part.name, content)


@pytest.mark.parametrize("name", SAID)
def test_a_statement_is_judged_good_with_its_body(name: str) -> None:
    said = SAID[name]
    origin = generator.JP if name == "acknowledged" else generator.EE
    verified = judge_statement(said["leaf"].encode(), origin=origin, index=0, roster=ROSTER, at=AT + 200)
    wire = json.dumps(
        {"statement": said["leaf"], "parts": {n: _opening(p) for n, p in said["parts"].items()}}
    )
    assert (judge_body(verified, read_signed(wire.encode()).parts).notice is None) == (name == "erased")


def _opening(part: dict[str, str]) -> dict[str, str]:
    return {"salt": part["salt"], "content": part["content"]}


@pytest.mark.parametrize("what", STATEMENT["refused_at_index_2"])
def test_a_leaf_called_refused_is_refused_under_its_code(what: str) -> None:
    case = STATEMENT["refused_at_index_2"][what]
    with pytest.raises(VerbaleError) as refusal:
        judge_statement(case["leaf"].encode(), origin=generator.EE, index=2, roster=ROSTER, at=AT)
    assert refusal.value.code == case["code"]


@pytest.mark.parametrize("what", STATEMENT["refused_bodies"])
def test_a_body_called_refused_is_refused_under_its_code(what: str) -> None:
    case = STATEMENT["refused_bodies"][what]
    signed = read_signed(json.dumps(case["signed"]).encode())
    verified = judge_statement(signed.statement, origin=generator.EE, index=0, roster=ROSTER, at=AT)
    with pytest.raises(VerbaleError) as refusal:
        judge_body(verified, signed.parts)
    assert refusal.value.code == case["code"]


class _History:
    """What the leaves so far say: the fold in its smallest form."""

    def __init__(self) -> None:
        self.ids: dict[str, bytes] = {}
        self.roots: dict[bytes, str] = {}
        self.notices: dict[str, NoticeState] = {}

    def statement_with_id(self, statement_id: str) -> bytes | None:
        return self.ids.get(statement_id)

    def notice_with_version(self, leaf_hash: bytes) -> NoticeState | None:
        root = self.roots.get(leaf_hash)
        return None if root is None else self.notices[root]

    def take(self, leaf: str, index: int) -> NoticeState | None:
        read = statement.parse(leaf.encode())
        state = lifecycle.advance(self, read, index)
        self.ids[read.id] = read.leaf_hash
        if state is not None:
            self.notices[state.root_id] = state
            if read.kind != "erase":
                self.roots[read.leaf_hash] = state.root_id
        return state


@pytest.mark.parametrize("what", STATEMENT["refused_histories"])
def test_a_log_called_refused_is_refused_at_its_last_leaf(what: str) -> None:
    case = STATEMENT["refused_histories"][what]
    history = _History()
    *good, last = case["leaves"]
    for index, leaf in enumerate(good):
        history.take(leaf, index)
    with pytest.raises(VerbaleError) as refusal:
        history.take(last, len(good))
    assert refusal.value.code == case["code"]


def test_the_notice_of_the_vectors_is_issued_amended_withdrawn_and_erased() -> None:
    history = _History()
    states = [history.take(leaf, index) for index, leaf in enumerate(LOG["leaves"])]
    assert [(s.status, s.version) for s in states if s] == [
        ("active", 1),
        ("active", 2),
        ("withdrawn", 3),
        ("erased", 3),
    ]


def test_the_log_of_the_vectors_holds_together() -> None:
    hashes = [statement.hash_leaf(leaf.encode()) for leaf in LOG["leaves"]]
    assert [b64u_encode(h) for h in hashes] == LOG["leaf_hashes"]
    assert b"".join(hashes).hex() == LOG["tile"]["hex"]
    key, witness = LOG["keys"]["log"]["vkey"], LOG["keys"]["witness"]["vkey"]
    head, note = open_checkpoint(LOG["served"].encode(), [VerifierKey.parse(key)], LOG["origin"])
    assert head.root == Frontier().extend(hashes).root()
    assert [c.at for c in verify_cosignatures(note, [CosignerKey.parse(witness)])] == [AT + 181]
    for index, path in LOG["inclusion"].items():
        verify_inclusion(hashes[int(index)], int(index), 4, [b64u_decode(h) for h in path], head.root)
    bundle = encode_bundle([leaf.encode() for leaf in LOG["leaves"]])
    assert sha256(bundle).hexdigest() == LOG["bundle"]["sha256_hex"]


def test_the_exchange_with_the_witness_ends_in_a_cosignature() -> None:
    asked = LOG["add_checkpoint"]
    keys = [VerifierKey.parse(LOG["keys"]["log"]["vkey"])]
    before, _ = open_checkpoint(LOG["checkpoint_1"].encode(), keys, LOG["origin"])
    submission = Submission.parse(asked["request"].encode())
    head, _ = judge_submission(submission, keys, LOG["origin"], before)
    note = parse_cosignatures(asked["answer_200"].encode(), head)
    (held,) = verify_cosignatures(note, [CosignerKey.parse(LOG["keys"]["witness"]["vkey"])])
    assert held.at == AT + 181


def authenticate(sqlite_url: str, *, later: int = 0, times: int = 1, **changes: Any) -> Principal:
    """Judge the request of the vectors, changed, `later` seconds after it was made, so many times."""
    db = Database(sqlite_url)
    asked = {"method": REQUEST["method"], "url": REQUEST["url"], "body": REQUEST["body"].encode()} | changes
    try:
        found = [
            signatures.authenticate_peer(
                db,
                headers=REQUEST["headers"],
                roster=ROSTER,
                now=(REQUEST["created"] + later) * 1000,
                **asked,
            )
            for _ in range(times)
        ]
    finally:
        db.dispose()
    return found[-1]


def test_the_signed_request_is_japans(sqlite_url: str) -> None:
    found = authenticate(sqlite_url)
    assert (found.kind, found.state, found.id) == ("peer", "JP", "JP/transport/1")
    key = PublicKey.from_text("Ed25519", REQUEST["key"]["public"])
    signature = REQUEST["headers"]["signature"].removeprefix("verbale=:").removesuffix(":")
    raw = b64u_decode(signature.rstrip("=").replace("+", "-").replace("/", "_"))
    key.verify(raw, REQUEST["signature_base"].encode())
    with pytest.raises(InvalidSignature):
        key.verify(raw, REQUEST["signature_base"].encode() + b" ")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"body": b'{"bodies":[]}'}, "invalid-message-signature"),
        ({"url": "https://jp.verbale.example/bodies"}, "invalid-message-signature"),
        ({"later": 301}, "signature-too-old"),
        ({"later": -301}, "signature-too-old"),
        ({"times": 2}, "signature-replayed"),
    ],
    ids=["another body", "another node", "late", "early", "twice"],
)
def test_the_signed_request_counts_once_in_time_and_for_its_own_bytes(
    sqlite_url: str, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(VerbaleError) as refusal:
        authenticate(sqlite_url, **changes)
    assert refusal.value.code == code


def test_the_answer_is_filed_by_its_beginning_and_opens_the_leaf() -> None:
    asked = bodies.parse_request(REQUEST["body"].encode())
    assert asked == [(generator.EE, 0), (generator.EE, 7)]
    later = b'{"origin":"ee.verbale.example/log/1","index":7,"later":true}\n'
    found, undecided, more = bodies._split_answer(
        REQUEST["answer"].encode() + later, "https://ee.verbale.example", generator.EE, {}
    )
    assert (list(found), undecided, more) == ([0], {7}, False)
    read = statement.parse(LOG["leaves"][0].encode())
    line = found[0]
    assert line is not None
    given = json.loads(line)["parts"]
    for part in read.parts:
        opened = given[part.name]
        check_opening(
            part.commitment, b64u_decode(opened["salt"]), read.id, part.name, b64u_decode(opened["content"])
        )


def test_the_card_proves_possession() -> None:
    card = KeyCard.from_line(CARD["card"].encode())
    assert possession_message(card.kid, card.use, "EE", card.key).hex() == CARD["possession_message_hex"]


# ── quorum and time ───────────────────────────────────────────────────────────────────────────────────────────────


def _keys(origin: str, size: int) -> tuple[VerifierKey, ...]:
    return log_keys(generator.five(), origin, settled=size)


def opened(note: str) -> Confirmed:
    return open_confirmation(
        note.encode(),
        keys=partial(_keys, generator.EE),
        origin=generator.EE,
        witnesses=confirmers(generator.five()),
        quorum_at=partial(generator.five().quorum_for, "EE"),
    )


def test_confirmed_checkpoints_have_the_time_of_the_vectors_and_bracket_leaves_by_it() -> None:
    points = []
    for one in TIME["confirmed"]:
        found = opened(one["note"])
        assert (found.checkpoint.size, found.at) == (one["size"], one["at"])
        points.append((found.checkpoint.size, found.at))
    page = encode_history(one["note"].encode() for one in TIME["confirmed"])
    assert decode_history(page) == [one["note"].encode() for one in TIME["confirmed"]]
    assert sha256(page).hexdigest() == TIME["history_0"]["sha256_hex"]
    for case in TIME["brackets"]:
        bracket = bracket_from(points, case["index"])
        assert (bracket.after, bracket.before, bracket.flag(case["iat"])) == (
            case["after"],
            case["before"],
            case["flag"],
        ), case


@pytest.mark.parametrize("name", TIME["refused"])
def test_what_no_quorum_cosigned_is_not_confirmed(name: str) -> None:
    with pytest.raises(ConfirmationRefused):
        opened(TIME["refused"][name])


def test_the_policy_of_the_vectors_accepts_what_is_confirmed_and_nothing_less() -> None:
    policy = Policy.parse(TIME["policy"].encode())
    notes = [(one["note"], True) for one in TIME["confirmed"]] + [(TIME["refused"]["two of three"], False)]
    for raw, accepted in notes:
        _, note = open_checkpoint(raw.encode(), [log.key for log in policy.logs], generator.EE)
        cosigners = [w.key for w in policy.witnesses if verify_cosignatures(note, [w.key])]
        assert policy.met_by(cosigners) is accepted
