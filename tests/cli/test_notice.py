"""A notice's life as an officer types it, against a node that runs."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.encoding import b64u_decode
from app.domain.notices import NOTICE_TYPES
from tests import examples
from tests.cli.conftest import Result, Served

Verbale = Callable[..., Result]


def written(path: Path, main: Any) -> Path:
    path.write_text(json.dumps(main), "utf-8")
    return path


def signed(verbale: Verbale, estonia: Served, path: Path, *more: object) -> Path:
    """Sign the main part at `path`; the file of the wire JSON."""
    result = verbale("notice", "sign", path, *estonia.signing, "--origin", estonia.origin, *more)
    assert (result.code, result.err) == (0, ""), result.err
    wire = path.with_suffix(".wire.json")
    wire.write_text(result.out, "utf-8")
    return wire


def posted(verbale: Verbale, estonia: Served, path: Path, *more: object) -> Any:
    result = verbale("notice", "post", signed(verbale, estonia, path, *more), "--url", estonia.url, "--json")
    assert result.code == 0, result.err
    return result.json


@pytest.fixture
def clear(tmp_path: Path) -> Path:
    """The main part of a public denial."""
    return written(
        tmp_path / "notice.json", examples.denied_end_user(tlp="TLP:CLEAR", title=f"Denied {tmp_path.name}")
    )


def test_a_notice_is_signed_posted_found_proven_and_verified(
    verbale: Verbale, estonia: Served, clear: Path, tmp_path: Path
) -> None:
    receipt = posted(verbale, estonia, clear)
    found = verbale(
        "notice", "list", "--url", estonia.url, "--party", "aurelian", "--limit", 1, "--json"
    ).json
    assert [n["id"] for n in found["items"]] == [receipt["id"]]
    shown = verbale("notice", "show", receipt["id"], "--url", estonia.url)
    assert shown.code == 0
    assert receipt["leaf_hash"] in shown.out
    estonia.running.publish()
    proof = tmp_path / "proof.json"
    assert verbale("notice", "proof", receipt["id"], "--url", estonia.url, "-o", proof).code == 0
    said = verbale("verify", proof, "--roster-root", estonia.root)
    assert said.code == 0
    assert said.out.count("ok ") == 9
    assert f"title       Denied {tmp_path.name}" in said.out
    proven = verbale("verify", proof, "--roster-root", estonia.root, "--json").json
    assert (proven["proven"], proven["issuer"], proven["status"], proven["notice"]) == (
        True,
        "EE",
        "active",
        receipt["id"],
    )


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (lambda p: p | {"format": "other"}, "format"),
        (lambda p: p | {"roster": {}}, "roster"),
        (lambda p: p | {"checkpoint": p["checkpoint"].replace("\n", "0\n", 2)}, "checkpoint"),
        (lambda p: p | {"statements": [p["statements"][0] | {"inclusion": ["A" * 43]}]}, "inclusion"),
        (
            lambda p: (
                p
                | {
                    "statements": [
                        p["statements"][0] | {"statement": p["statements"][0]["statement"][:-3] + "AAA"}
                    ]
                }
            ),
            "signature",
        ),
    ],
)
def test_a_proof_that_was_changed_is_refused_at_its_step(
    verbale: Verbale, estonia: Served, clear: Path, tmp_path: Path, change: Callable[[Any], Any], step: str
) -> None:
    receipt = posted(verbale, estonia, clear)
    estonia.running.publish()
    whole = json.loads(verbale("notice", "proof", receipt["id"], "--url", estonia.url).out)
    changed = written(tmp_path / "changed.json", change(whole))
    refused = verbale("verify", changed, "--roster-root", estonia.root, "--json")
    assert refused.code == 1
    assert (refused.json["proven"], refused.json["failed"], refused.json["error"]["code"]) == (
        False,
        step,
        "proof-refused",
    )
    assert "FAILED" in verbale("verify", changed, "--roster-root", estonia.root).out


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b'{"format":"verbale/proof/v1"}', b"{" * 5000, b'{"a":1,"a":2}']
)
def test_rubbish_is_no_proof_and_no_traceback(
    verbale: Verbale, estonia: Served, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "rubbish"
    file.write_bytes(content)
    for name, root in ((file, estonia.root), (estonia.root, file)):
        result = verbale("verify", name, "--roster-root", root)
        assert result.code == 1
        assert "error: " in result.err


def test_the_bytes_of_the_file_are_signed_as_they_are(
    verbale: Verbale, estonia: Served, tmp_path: Path
) -> None:
    file = tmp_path / "spaced.json"
    file.write_text(json.dumps(examples.best_practice(), indent=3), "utf-8")
    wire = json.loads(signed(verbale, estonia, file).read_text())
    assert b64u_decode(wire["parts"]["main"]["content"]) == file.read_bytes()


def test_posting_again_answers_the_same_receipt(verbale: Verbale, estonia: Served, clear: Path) -> None:
    wire = signed(verbale, estonia, clear)
    first = verbale("notice", "post", wire, "--url", estonia.url, "--json").json
    again = verbale("notice", "post", wire, "--url", estonia.url)
    assert again.code == 0
    assert f"index {first['index']} of {estonia.origin}, as before" in again.out


def test_a_notice_over_several_lines_is_one_notice(
    verbale: Verbale, estonia: Served, clear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = json.loads(signed(verbale, estonia, clear).read_text())
    text = json.dumps(wire, indent=2).replace("{\n", "{", 1)  # the first line is more than a brace
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    result = verbale("notice", "post", "-", "--url", estonia.url)
    assert result.code == 0, result.err


def test_a_batch_stores_what_is_good_and_prints_each_refusal(
    verbale: Verbale, estonia: Served, clear: Path, tmp_path: Path
) -> None:
    good = [signed(verbale, estonia, clear).read_text() for _ in range(2)]
    bad = json.loads(good[0])
    bad["parts"]["main"]["salt"] = "A" * 43
    batch = tmp_path / "batch.ndjson"
    batch.write_text(good[0] + json.dumps(bad) + "\nrubbish\n" + good[1] + good[1] + "\n\n")
    result = verbale("notice", "post", batch, "--url", estonia.url)
    assert result.code == 1
    assert result.out.startswith("2 notices posted, 1 stood there already, 2 refused")
    lines = result.err.splitlines()
    assert lines[0].startswith("line 2: 422 commitment-mismatch: ")
    assert lines[1].startswith("line 3: 422 malformed-json: ")
    assert lines[2] == "error: 2 of 5 notices were refused; the others are stored."
    answers = [
        json.loads(line)
        for line in verbale("notice", "post", batch, "--url", estonia.url, "--json").out.splitlines()
    ]
    assert [a.get("line") for a in answers[:5]] == [1, 2, 3, 4, 5]
    assert [a["status"] for a in answers[:5]] == [200, 422, 422, 200, 200]
    assert answers[5]["error"]["code"] == "some-refused"


def test_a_batch_whose_first_line_is_damaged_is_still_a_batch(
    verbale: Verbale, estonia: Served, clear: Path, tmp_path: Path
) -> None:
    batch = tmp_path / "batch.ndjson"
    batch.write_text('{"statement": \n' + signed(verbale, estonia, clear).read_text())
    result = verbale("notice", "post", batch, "--url", estonia.url)
    assert result.code == 1
    assert result.out.startswith("1 notices posted, 1 refused")


def test_a_refusal_carries_the_nodes_word_for_it(verbale: Verbale, estonia: Served, clear: Path) -> None:
    result = verbale("notice", "sign", clear, *estonia.signing, "--origin", "nl.example/log/1")
    wire = clear.with_name("foreign.json")
    wire.write_text(result.out)
    refused = verbale("notice", "post", wire, "--url", estonia.url, "--json")
    assert refused.code == 1
    assert refused.json["error"]["code"] == "wrong-log"


def test_what_a_node_will_refuse_is_said_when_signing(
    verbale: Verbale, estonia: Served, tmp_path: Path
) -> None:
    file = written(tmp_path / "bad.json", examples.denied_end_user(audience=[]))
    result = verbale("notice", "sign", file, *estonia.signing, "--origin", estonia.origin)
    assert result.code == 0
    assert result.err.startswith("warning: a node will refuse this (invalid-notice).")
    assert verbale("notice", "check", file).code == 1


def test_a_notice_is_amended_withdrawn_and_erased(
    verbale: Verbale, estonia: Served, clear: Path, tmp_path: Path
) -> None:
    token = verbale(
        "token",
        "create",
        "--name",
        "t",
        "--scope",
        "read",
        "--ceiling",
        "TLP:RED",
        "--settings",
        estonia.settings,
    ).out.strip()
    asks = ("--url", estonia.url, "--token", token)
    notice_id = posted(verbale, estonia, clear)["id"]
    new = written(tmp_path / "new.json", examples.denied_end_user(tlp="TLP:CLEAR", title="Corrected"))
    amended = verbale(
        "notice", "amend", notice_id, *asks, *estonia.signing, "--with", new, "--reason", "correction"
    )
    assert amended.code == 0, amended.err
    shown = verbale("notice", "show", notice_id, *asks, "--json").json
    assert (shown["title"], shown["version"]) == ("Corrected", 2)
    withdrawn = verbale(
        "notice",
        "withdraw",
        notice_id,
        *asks,
        *estonia.signing,
        "--reason",
        "Mistaken.",
        "--kind",
        "delisted",
    )
    assert withdrawn.code == 0, withdrawn.err
    assert verbale("notice", "show", notice_id, *asks, "--json").json["status"] == "withdrawn"
    closed = verbale("notice", "amend", notice_id, *asks, *estonia.signing, "--with", new, "--json")
    assert (closed.code, closed.json["error"]["code"]) == (1, "notice-closed")
    erased = verbale("notice", "erase", notice_id, *asks, *estonia.signing, "--yes")
    assert erased.code == 0, erased.err
    assert "Corrected" not in verbale("notice", "show", notice_id, *asks, "--json").out


def test_references_are_taken_as_hex_and_as_base64url(verbale: Verbale, estonia: Served, clear: Path) -> None:
    receipt = posted(verbale, estonia, clear)
    for ref in (receipt["leaf_hash"], b64u_decode(receipt["leaf_hash"]).hex()):
        sign = verbale(
            "notice", "sign", *estonia.signing, "--origin", estonia.origin, "--kind", "erase", "--ref", ref
        )
        assert sign.code == 0, sign.err
        payload = json.loads(b64u_decode(sign.out.split('"')[3].split(".")[1]))
        assert (payload["kind"], payload["ref"], payload["parts"]) == ("erase", receipt["leaf_hash"], [])


def test_an_attachment_is_one_more_part(verbale: Verbale, estonia: Served, tmp_path: Path) -> None:
    annex = tmp_path / "annex: one.pdf"
    annex.write_bytes(b"%PDF-")
    listed = [{"part": "annex", "name": "annex.pdf", "media_type": "application/pdf", "size": 5}]
    main = written(tmp_path / "n.json", examples.best_practice(attachments=listed))
    wire = signed(verbale, estonia, main, "--attach", f"annex={annex}:application/pdf")
    assert b64u_decode(json.loads(wire.read_text())["parts"]["annex"]["content"]) == b"%PDF-"
    assert verbale("notice", "post", wire, "--url", estonia.url).code == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--kind", "amend"], 1),
        (["--ref", "zz"], 1),
        (["--exp", "soon"], 1),
        (["--attach", "annex"], 1),
        (["--kind", "erase"], 2),
        (["--kind", "nosuch"], 2),
        (["--kid", "EE"], 1),
    ],
)
def test_options_that_make_no_statement_are_refused(
    verbale: Verbale, estonia: Served, clear: Path, options: list[str], code: int
) -> None:
    result = verbale("notice", "sign", clear, *estonia.signing, "--origin", estonia.origin, *options)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{", b'{"a":NaN}', b'{"a":1,"a":2}', b"[" * 100_000]
)
def test_rubbish_is_not_signed(verbale: Verbale, estonia: Served, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rubbish"
    file.write_bytes(content)
    result = verbale("notice", "sign", file, *estonia.signing, "--origin", estonia.origin)
    assert (result.code, result.out) == (1, "")


def test_a_key_that_others_can_read_signs_nothing(
    verbale: Verbale, estonia: Served, clear: Path, tmp_path: Path
) -> None:
    loose = tmp_path / "loose.key"
    loose.write_bytes(estonia.node.contact_key.read_bytes())
    loose.chmod(0o644)
    result = verbale("notice", "sign", clear, "--key", loose, "--kid", "EE/cp/1", "--origin", estonia.origin)
    assert result.code == 3
    assert "chmod 600" in result.err


def test_a_node_that_does_not_answer_is_code_4(verbale: Verbale, tmp_path: Path) -> None:
    assert verbale("notice", "list", "--url", "http://127.0.0.1:9").code == 4
    assert verbale("federation", "--url", "http://127.0.0.1:9").code == 4


@pytest.mark.parametrize(
    "url", ["", "node.example", "ftp://node.example", "http://", "http://node.example?x=1"]
)
def test_what_is_no_address_is_refused(verbale: Verbale, url: str) -> None:
    assert verbale("notice", "list", "--url", url).code == 1


def test_an_unknown_filter_and_an_unknown_id_are_the_nodes_to_refuse(
    verbale: Verbale, estonia: Served
) -> None:
    listed = verbale("notice", "list", "--url", estonia.url, "--filter", "colour=red", "--json")
    assert (listed.code, listed.json["error"]["code"]) == (1, "invalid-filter")
    shown = verbale("notice", "show", "../../health", "--url", estonia.url, "--json")
    assert (shown.code, shown.json["error"]["code"]) == (1, "not-found")


def test_a_list_longer_than_a_page_is_fetched_whole(verbale: Verbale, estonia: Served, clear: Path) -> None:
    posted(verbale, estonia, clear)
    posted(verbale, estonia, clear)
    everything = verbale(
        "notice", "list", "--url", estonia.url, "--status", "all", "--limit", 0, "--json"
    ).json
    assert len(everything["items"]) == everything["total"] >= 2
    shown = verbale("notice", "list", "--url", estonia.url, "--limit", 1)
    assert shown.out.splitlines()[-1].startswith("1 of ")


@pytest.mark.parametrize("notice_type", NOTICE_TYPES)
def test_every_type_has_a_template(verbale: Verbale, notice_type: str) -> None:
    for options in ((), ("--full",), ("--issuer", "EE")):
        made = verbale("notice", "new", notice_type, *options).json
        assert (made["type"], made["tlp"]) == (notice_type, "TLP:GREEN")
        assert made["issuer"] == ("EE" if options[:1] == ("--issuer",) else made["issuer"])


def test_a_template_of_no_type_is_refused(verbale: Verbale) -> None:
    assert verbale("notice", "new", "gossip").code == 1


def test_the_federation_is_shown(verbale: Verbale, estonia: Served) -> None:
    assert verbale("federation", "--url", estonia.url, "--json").json["logs"][0]["state"] == "EE"
    assert "Central contact: EE" in verbale("federation", "--settings", estonia.settings).out
