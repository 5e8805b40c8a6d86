"""Every part of a proposal with a flipped bit: nobody can publish it, and whoever tries is told what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.domain.errors import VerbaleError
from app.keyfiles import generate
from app.roster import ceremony
from tests.roster.federation import AT, Federation, card

STRIDE = 37
"""Every byte would take minutes; each run of 37 bytes has one flipped, and the offset differs between the files."""


def test_a_signed_draft_with_any_bit_flipped_is_not_published(federation: Federation, tmp_path: Path) -> None:
    repository = federation.repository
    ceremony.propose_rotation(repository, "rotate", card(generate(), "EE", "notices", 2), at=AT)
    federation.sign("rotate", [federation.authority["EE"]])
    federation.sign("rotate", list(federation.online.values())[:2])
    draft = repository / "drafts" / "rotate"
    kept = tmp_path / "kept"
    shutil.copytree(repository, kept)
    files = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    assert len(files) >= 5
    for number, name in enumerate(files):
        raw = (draft / name).read_bytes()
        step = 1 if name.name == "draft.json" else STRIDE
        for at in range(number % step, len(raw), step):
            (draft / name).write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 7]) + raw[at + 1 :])
            with pytest.raises(VerbaleError) as refused:
                ceremony.publish(repository, "rotate", at=AT)
            assert str(refused.value), (name, at)
        (draft / name).write_bytes(raw)
    assert {p: (repository / p).read_bytes() for p in federation.files()} == {
        p: (kept / p).read_bytes() for p in federation.files()
    }
    ceremony.publish(repository, "rotate", at=AT)
