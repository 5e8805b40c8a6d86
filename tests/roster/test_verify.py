"""From a pinned root to a roster, against every kind of tampering that bytes allow."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, TargetFile

from app.domain.encoding import b64u_encode
from app.domain.errors import Refused, RosterExpired, UnacceptableKey, VerbaleError
from app.domain.json import canonical
from app.keyfiles import generate
from app.roster import (
    RosterNotVerified,
    RosterRefused,
    ceremony,
    export_bundle,
    layout,
    roster_from_bundle,
    roster_from_repository,
    verify,
    verify_bundle,
)
from tests.roster.federation import AT, DAY, Federation, Files, resign, rotate, set_state_document, sign_with

JUNK: tuple[Any, ...] = (None, 0, -1, 1e300, "", "x", [], {}, True, [[]], {"a": 1})


def refused(files: Files, root: bytes) -> VerbaleError:
    """Verify and return the refusal; fail if there is none, or if it is no refusal of ours."""
    with pytest.raises(Refused) as caught:
        verify(files.get, root)
    assert str(caught.value)
    return caught.value


def test_a_flipped_byte_anywhere_is_refused(two_states: Federation) -> None:
    files, root = two_states.files(), two_states.root
    assert verify(files.get, root).roster.version == 1
    step = 13  # every byte takes minutes; a random start covers them all over the runs
    tried = 0
    for path, raw in files.items():
        for index in range(random.randrange(step), len(raw), step):  # noqa: S311 - not for secrecy
            for mask in (0x01, 0x20):
                tried += 1
                damaged = raw[:index] + bytes([raw[index] ^ mask]) + raw[index + 1 :]
                refused({**files, path: damaged}, root)
    assert tried > 500


def test_a_missing_truncated_or_lengthened_file_is_refused(two_states: Federation) -> None:
    files, root = two_states.files(), two_states.root
    for path, raw in files.items():
        if path == "metadata/1.root.json":
            continue  # the pinned root itself need not be served
        refused({name: data for name, data in files.items() if name != path}, root)
        for damaged in (b"", raw[:-1], raw + b"\n", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff\xfe"):
            refused({**files, path: damaged}, root)
        assert "larger than" in str(refused({**files, path: raw + b" " * layout.MAX_METADATA}, root))


@pytest.mark.parametrize("role", ["timestamp", "1.snapshot", "1.targets", "1.state-ee"])
def test_members_of_the_wrong_type_are_refused_and_crash_nothing(two_states: Federation, role: str) -> None:
    files, root = two_states.files(), two_states.root
    path = f"metadata/{role}.json"
    value = json.loads(files[path])

    def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        return [at, *(place for key, child in inner for place in places(child, (*at, key)))]

    for place in places(value)[1:]:
        for junk in JUNK:
            copy = json.loads(files[path])
            target = copy
            for key in place[:-1]:
                target = target[key]
            if target[place[-1]] == junk and type(target[place[-1]]) is type(junk):
                continue
            target[place[-1]] = junk
            raw = json.dumps(copy, separators=(",", ":"), sort_keys=True).encode()
            refused({**files, path: raw}, root)


def test_another_federations_root_verifies_nothing(two_states: Federation, tmp_path: Path) -> None:
    other = Federation(tmp_path / "other", codes=("EE", "JP"), online_codes=("EE", "JP"))
    other.found()
    assert isinstance(refused(two_states.files(), other.root), RosterNotVerified)
    mixed = {**two_states.files(), "metadata/1.root.json": other.root}
    assert isinstance(refused(mixed, two_states.root), RosterNotVerified)


def test_expiry_is_judged_only_when_a_time_is_given(two_states: Federation) -> None:
    read = two_states.files().get
    assert verify(read, two_states.root).roster.expires == AT + 7 * DAY
    assert verify(read, two_states.root, at=AT + 7 * DAY - 1).roster.version == 1
    with pytest.raises(RosterExpired, match="timestamp counted until 2026-09-28"):
        verify(read, two_states.root, at=AT + 7 * DAY)


def test_a_lapsed_state_is_named_and_takes_nobody_elses_roster_away(two_states: Federation) -> None:
    ceremony.propose_renewal(
        two_states.repository, "renew", ["root", "targets", "state-jp"], at=AT + 170 * DAY
    )
    two_states.finish("renew", AT + 170 * DAY)
    later = AT + 181 * DAY
    two_states.refresh(later)
    verified = verify(two_states.files().get, two_states.root, at=later)
    assert verified.lapsed(later) == ("EE",)
    assert verified.roster.key("EE", "EE/cp/1") is not None


# ── what a dishonest threshold, or a dishonest State, could sign ──────────────────────────────────────────────────


def test_the_forging_tools_of_these_tests_work(two_states: Federation) -> None:
    def change(value: dict[str, Any]) -> None:
        value["url"] = "https://elsewhere.example"

    files = set_state_document(two_states, "EE", change)
    assert verify(files.get, two_states.root).roster.states["EE"].url == "https://elsewhere.example"


IDENTITY = b"\x01" + bytes(31)
ORDER_EIGHT = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
NOT_CANONICAL = bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")


@pytest.mark.parametrize("raw", [IDENTITY, ORDER_EIGHT, NOT_CANONICAL, bytes(32), b"\x00" * 31])
def test_a_small_order_or_non_canonical_key_is_refused_when_loading(
    two_states: Federation, raw: bytes
) -> None:
    def change(value: dict[str, Any]) -> None:
        value["keys"][0]["public"] = b64u_encode(raw)
        value["keys"][0]["proof"] = b64u_encode(
            IDENTITY + bytes(32)
        )  # holds for any message under the identity key

    error = refused(set_state_document(two_states, "EE", change), two_states.root)
    assert isinstance(error, UnacceptableKey)
    assert "EE/cp/1" in str(error)


def _key(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["keys"][0].update(changes)


INADMISSIBLE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "speaks for another State": (lambda v: v.update(state="JP"), "speaks only for itself"),
    "a member nobody checks": (lambda v: v.update(note="x"), "does not know"),
    "a member missing": (lambda v: v.pop("logs"), "lacks logs"),
    "another version": (lambda v: v.update(v=2), "version 1"),
    "true for one": (lambda v: v.update(v=True), "version 1"),
    "unknown use": (_key(use="everything"), "unknown use"),
    "a governance use": (_key(use="governance"), "unknown use"),
    "key id of another State": (_key(kid="JP/cp/1"), "only its own keys"),
    "key id of another use": (_key(kid="EE/log/7"), "no key id for notices"),
    "key id with a twist": (_key(kid="EE/cp/01"), "no key id"),
    "proof of nothing": (_key(proof=b64u_encode(bytes(64))), "proof"),
    "proof with padding": (_key(proof="AA=="), "proof"),
    "key id twice": (lambda v: v["keys"].append(v["keys"][0]), "listed twice"),
    "ends before it begins": (_key(to=AT), "whole number"),
    "begins in 1970": (_key(**{"from": 0}), "whole number"),
    "begins in 2250": (_key(**{"from": 8_836_000_000}), "whole number"),
    "negative index": (_key(revoked_at_index=-1), "whole number"),
    "index as text": (_key(revoked_at_index="5"), "whole number"),
    "index as true": (_key(revoked_at_index=True), "whole number"),
    "another algorithm": (_key(alg="RS256"), "algorithm"),
    "origin with a scheme": (
        lambda v: v["logs"][0].update(origin="https://ee.example/log/1"),
        "is not <host>/log/1",
    ),
    "origin of JP": (lambda v: v["logs"][0].update(origin="jp.verbale.example/log/1"), "claimed by"),
    "witness name of JP": (lambda v: v.update(witness_name="jp.verbale.example/witness"), "claimed by"),
    "epoch that is not the origin's": (lambda v: v["logs"][0].update(epoch=2), "is not <host>/log/2"),
    "url with a password": (lambda v: v.update(url="https://a:b@ee.example"), "base URL"),
    "url of a file": (lambda v: v.update(url="file:///etc/passwd"), "base URL"),
    "url with a query": (lambda v: v.update(url="https://ee.example?x=1"), "base URL"),
    "url with a slash at the end": (lambda v: v.update(url="https://ee.example/"), "base URL"),
    "an impossible port": (lambda v: v.update(url="https://ee.example:99999"), "base URL"),
    "a right-to-left name": (lambda v: v["contact_point"].update(office="a\u202eb"), "plain text"),
    "two active logs": (
        lambda v: v["logs"].append({**v["logs"][0], "origin": "ee.verbale.example/log/2", "epoch": 2}),
        "more than one log",
    ),
    "a log without a log key": (
        lambda v: v.update(keys=[k for k in v["keys"] if k["use"] != "log"]),
        "needs a listed key",
    ),
    "a witness without a name": (lambda v: v.update(witness_name=None), "witness_name"),
    "a witness name with a plus": (lambda v: v.update(witness_name="a+b"), "witness_name"),
}


@pytest.mark.parametrize("case", INADMISSIBLE)
def test_an_inadmissible_state_document_is_refused_though_properly_signed(
    two_states: Federation, case: str
) -> None:
    change, words = INADMISSIBLE[case]
    error = refused(set_state_document(two_states, "EE", change), two_states.root)
    assert words in str(error)


def test_a_document_in_another_spelling_is_refused(two_states: Federation) -> None:
    files = two_states.files()
    name = layout.state_target("EE")
    [path] = [p for p in files if p.endswith(".ee.json")]
    raw = json.dumps(json.loads(files.pop(path)), indent=1).encode()
    info = TargetFile.from_data(name, raw)
    files[layout.target_path(name, info.hashes["sha256"])] = raw

    def targets(signed: Any) -> None:
        signed.targets = {name: info}

    resign(two_states, files, "state-ee", targets, [two_states.authority["EE"]])
    assert "canonical JSON" in str(refused(files, two_states.root))


def test_a_state_cannot_sign_for_another_or_delegate_or_add_targets(two_states: Federation) -> None:
    files = two_states.files()
    resign(two_states, files, "state-ee", lambda signed: None, [two_states.authority["JP"]])
    assert "state-ee" in str(refused(files, two_states.root))

    files = two_states.files()

    def more(signed: Any) -> None:
        signed.targets["states/jp.json"] = signed.targets["states/ee.json"]

    resign(two_states, files, "state-ee", more, [two_states.authority["EE"]])
    assert "exactly one target" in str(refused(files, two_states.root))


def test_an_extra_or_damaged_signature_is_refused(two_states: Federation) -> None:
    files = two_states.files()
    resign(two_states, files, "state-ee", lambda signed: None, [two_states.authority["EE"], generate()])
    assert "not in the role" in str(refused(files, two_states.root))


def test_thresholds_below_the_majority_are_refused_at_the_pinned_root(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster")
    federation.init()
    draft = ceremony.load_draft(federation.repository, "founding")
    draft.content["root"].signed.roles["targets"].threshold = 1
    draft.save()
    with pytest.raises(RosterRefused, match="the rule gives 3"):
        federation.sign("founding", federation.threshold())


def test_a_root_key_that_does_not_say_whose_it_is_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster")
    federation.init()
    draft = ceremony.load_draft(federation.repository, "founding")
    root: Root = draft.content["root"].signed
    stranger = CryptoSigner.generate_ed25519().public_key
    for role in ("root", "targets"):
        root.add_key(stranger, role)
    draft.save()
    with pytest.raises(UnacceptableKey, match="does not say whose"):
        federation.sign("founding", federation.threshold())


# ── roots ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_chain_of_rotations_verifies_from_every_root_in_it(federation: Federation) -> None:
    for number in (2, 3, 4):
        rotate(federation, "EE", number)
    expected = roster_from_repository(federation.repository, federation.root, AT)
    assert expected.version == 4
    for version in (2, 3, 4):
        pinned = (federation.repository / "metadata" / f"{version}.root.json").read_bytes()
        assert roster_from_repository(federation.repository, pinned, AT) == expected
        assert roster_from_bundle(export_bundle(federation.repository), pinned, AT) == expected


def test_a_gap_or_an_unsigned_step_in_the_chain_is_refused(federation: Federation) -> None:
    for number in (2, 3):
        rotate(federation, "EE", number)
    files, root = federation.files(), federation.root
    gap = {path: raw for path, raw in files.items() if path != "metadata/2.root.json"}
    refused(gap, root)
    forged: Metadata[Any] = Metadata.from_bytes(files["metadata/2.root.json"])
    sign_with(forged, [federation.governance["EE"]])
    refused({**files, "metadata/2.root.json": forged.to_bytes()}, root)


# ── bundles ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bundle_verifies_offline_and_survives_json(federation: Federation) -> None:
    bundle = json.loads(json.dumps(export_bundle(federation.repository)))
    assert roster_from_bundle(bundle, federation.root, AT) == roster_from_repository(
        federation.repository, federation.root
    )
    with pytest.raises(RosterExpired):
        roster_from_bundle(bundle, federation.root, AT + 30 * DAY)
    assert roster_from_bundle(bundle, federation.root).version == 1


def test_a_flipped_byte_anywhere_in_a_bundle_is_refused(two_states: Federation) -> None:
    raw = canonical(export_bundle(two_states.repository))
    step = 37
    for index in range(random.randrange(step), len(raw), step):  # noqa: S311 - not for secrecy
        damaged = raw[:index] + bytes([raw[index] ^ 0x01]) + raw[index + 1 :]
        try:
            bundle = json.loads(damaged)
        except ValueError:
            continue
        with pytest.raises(Refused):
            verify_bundle(bundle, two_states.root)


def test_a_bundle_with_anything_else_in_it_is_refused(two_states: Federation) -> None:
    good = export_bundle(two_states.repository)
    files = good["files"]
    spare = layout.target_path("states/xx.json", "0" * 64)
    bundles: tuple[Any, ...] = (
        None,
        [],
        {},
        {**good, "v": 2},
        {**good, "v": True},
        {**good, "type": "other"},
        {**good, "more": 1},
        {**good, "files": []},
        {**good, "files": {**files, "../etc/passwd": "AA"}},
        {**good, "files": {**files, spare: "AA"}},
        {**good, "files": {**files, "metadata/timestamp.json": 5}},
        {**good, "files": {**files, "metadata/timestamp.json": "AA=="}},
        {**good, "files": {f"metadata/{n}.root.json": "AA" for n in range(1, 3000)}},
    )
    for bundle in bundles:
        with pytest.raises(RosterNotVerified):
            verify_bundle(bundle, two_states.root)


def test_two_rosters_with_one_version_have_two_digests(two_states: Federation) -> None:
    def change(value: dict[str, Any]) -> None:
        value["url"] = "https://elsewhere.example"

    files = set_state_document(two_states, "EE", change)
    one = verify(two_states.files().get, two_states.root).roster
    other = verify(files.get, two_states.root).roster
    assert one.version == other.version
    assert one.sha256 != other.sha256


def test_verification_of_an_unchanged_roster_is_quick(federation: Federation) -> None:
    files, root = federation.files(), federation.root
    verify(files.get, root)
    begun = time.perf_counter()
    verify(files.get, root)
    assert time.perf_counter() - begun < 1.0  # 20 ms here; the bound only catches a lost cache
