"""Keys of a running node change in mid-stream: log, witness and transport, one after the other, while another State is away."""

from __future__ import annotations

import json
import time
from contextlib import closing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from app.cli import run as verbale
from app.drill.ceremonies import adopt, finish
from app.drill.field import Field
from app.drill.report import DrillReport
from app.keyfiles import read_card
from app.roster import ceremony
from app.tlog.cosignature import CosignerKey
from app.tlog.note import VerifierKey
from app.tlog.note import parse as parse_note

ROTATED, AWAY, OTHER = "EE", "NL", "US"
TITLES = ["before", "during log", "during witness", "during transport", "after"]


def command(*words: str) -> str:
    """Run `verbale` as an operator would; fails unless it ends with 0."""
    printed = StringIO()
    with redirect_stdout(printed):
        code = verbale(list(words))
    assert code == 0, printed.getvalue()
    return printed.getvalue()


def proof_of(field: Field, reader: str, notice: str, folder: Path) -> Path:
    file = folder / f"{reader}-{notice}-{time.monotonic_ns()}.json"
    file.write_text(json.dumps(field.apis[reader].json(f"/v1/notices/{notice}/proof")), "utf-8")
    return file


def signers(field: Field, state: str) -> set[bytes]:
    """Key ids under which a State's newest head is signed by its log."""
    note = parse_note(field.apis[state].get("/log/1/checkpoint").content)
    return {line.key_id for line in note.signatures if line.name == field.origin(state)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_log_witness_and_transport_keys_change_while_notices_flow_and_a_state_that_was_away_agrees(
    tmp_path: Path,
) -> None:
    report = DrillReport(as_json=True)
    field = Field(tmp_path, report)
    with closing(field), report.step("Keys change in mid-stream"):
        field.found((ROTATED, AWAY, OTHER))
        field.start()
        posted = [field.post(ROTATED, TITLES[0])]
        field.settle(ROTATED)
        first_proof = proof_of(field, OTHER, posted[0].id, tmp_path)
        field.stop(AWAY)

        cards = {}
        settings = field.federation.node(ROTATED).settings
        for use in ("log", "witness", "transport"):
            made = json.loads(
                command(
                    "keys",
                    "rotate",
                    use,
                    "--settings",
                    str(field.federation.node(ROTATED).settings_file),
                    "--json",
                )
            )
            cards[use] = read_card(settings.keys_dir / f"{use}-2.key.pub")
            assert made["kid"] == cards[use].kid == f"{ROTATED}/{use}/2"
            repository = str(field.federation.repository)
            command("roster", "rotate", repository, f"new-{use}", str(settings.keys_dir / f"{use}-2.key.pub"))
            version = finish(field, f"new-{use}", authority=ROTATED)
            posted.append(field.post(ROTATED, f"during {use}"))
            adopt(field, version)
        posted.append(field.post(ROTATED, TITLES[-1]))
        field.settle(ROTATED, readers=(OTHER,))

        # The new keys are the ones at work: the log's heads, the receipts it gives, the requests it signs.
        new_log = VerifierKey(field.origin(ROTATED), cards["log"].key).key_id
        field.wait("a head under the new log key", lambda: signers(field, ROTATED) == {new_log})
        field.post(OTHER, "for the witness")
        field.settle(OTHER, readers=(ROTATED,))
        roster = ceremony.current(field.federation.repository)
        assert roster is not None
        name = roster.states[ROTATED].witness_name
        assert name is not None
        receipt = {_cosigner_id(name, cards["witness"].key)}
        field.wait("a receipt under the new witness key", lambda: _receipts(field, OTHER, name) == receipt)
        field.post(OTHER, "for Estonia alone", tlp="TLP:AMBER", audience=[ROTATED, OTHER])
        field.wait(
            "the body comes to whoever asks with the new transport key",
            lambda: "for Estonia alone" in field.titles(ROTATED, OTHER),
        )

        # Who was away through all of it agrees with those who were not, and everybody holds everything.
        field.start(AWAY)
        field.settle()
        for state in (ROTATED, AWAY, OTHER):
            assert field.titles(state, ROTATED) == TITLES[::-1]
            assert _faults(field, state) == []
        assert field.cosigned(ROTATED, field.log(ROTATED, ROTATED)["size"]) == {AWAY, OTHER}

        # What was proven before is proven still, and what was said under each key is proven now, by any of them.
        root = str(field.federation.root)
        command("verify", str(first_proof), "--roster-root", root)
        for one in posted:
            for state in (ROTATED, AWAY):
                shown = json.loads(
                    command(
                        "verify",
                        str(proof_of(field, state, one.id, tmp_path)),
                        "--roster-root",
                        root,
                        "--json",
                    )
                )
                assert shown["notice"] == one.id


def _receipts(field: Field, state: str, name: str) -> set[bytes]:
    note = parse_note(field.apis[state].get("/log/1/checkpoint").content)
    return {line.key_id for line in note.signatures if line.name == name}


def _cosigner_id(name: str, key: Any) -> bytes:
    return CosignerKey(name, key).key_id


def _faults(field: Field, state: str) -> list[Any]:
    found: list[Any] = field.apis[state].json("/v1/federation/faults", limit=100)["items"]
    return found
