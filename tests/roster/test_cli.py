"""The ceremony as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.roster import CHECK_EXPIRED, CHECK_FINE, CHECK_SOON, app
from app.domain.errors import VerbaleError
from app.domain.states import STATES
from app.roster import KeyNotInRole, roster_from_repository
from app.roster.layout import expiry_level
from tests.roster.federation import AT, DAY, Federation


def run(*arguments: object, code: int = 0) -> str:
    """Run one command; a refusal of ours is raised as the error it is."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, VerbaleError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def data(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


def keygen(directory: Path, code: str, use: str, number: int = 1) -> Path:
    segment = {"notices": "cp"}.get(use, use)
    path = directory / (f"{code}-{use}.pem" if number == 1 else f"{code}-{use}-{number}.pem")
    run("keygen", path, "--kid", f"{code}/{segment}/{number}", "--use", use)
    return path


def pub(path: Path) -> str:
    return f"{path}.pub"


def test_a_federation_from_the_first_key_to_the_published_roster(tmp_path: Path) -> None:
    repository, keys = tmp_path / "roster", tmp_path / "keys"
    governance = {code: keygen(keys, code, "governance") for code in ("EE", "NL", "US")}
    online = {code: keygen(keys, code, "online") for code in ("EE", "NL")}
    authority = keygen(keys, "EE", "authority")
    at = ["--at", AT]
    began = run(
        *("init", repository, "--name", "Verbale", *at),
        *(argument for path in governance.values() for argument in ("--governance", pub(path))),
        *(argument for path in online.values() for argument in ("--online", pub(path))),
    )
    assert "+ State XK: Kosovo, member, joined 2023-03-30" in began
    assert "+ State CR: Costa Rica, member, joined 2023" in began
    assert "+ Governance threshold: 2 of 3" in began

    cards = [keygen(keys, "EE", use) for use in ("notices", "log", "witness", "transport")]
    document = tmp_path / "ee.json"
    run(
        *("state-document", "--state", "EE", "--output", document, "--url", "http://127.0.0.1:8402", *at),
        *("--origin", "ee.verbale.example/log/1", "--witness-name", "ee.verbale.example/witness"),
        *("--office", "Strategic Goods Commission", "--email", "contact@ee.example", "--language", "en"),
        *(argument for path in cards for argument in ("--key", pub(path))),
    )
    run("propose", "state-document", repository, "founding", document, "--authority", pub(authority), *at)
    run("propose", "central-contact", repository, "founding", "NL", "2026-01-01", "--confirmed-by", "US", *at)

    with pytest.raises(KeyNotInRole):
        run("sign", repository, "founding", "--key", cards[0], *at)
    said = run("sign", repository, "founding", "--key", governance["EE"], *at)
    assert "Signed root, targets." in said
    assert "root needs 1 more of NL/governance/1, US/governance/1" in said
    assert "nothing changed" in run("sign", repository, "founding", "--key", governance["EE"], *at)
    for path in (governance["US"], authority, *online.values()):
        run("sign", repository, "founding", "--key", path, *at)
    reviewed = data("review", repository, "founding")
    assert all(s["needed"] == 0 for s in reviewed["signatures"])
    published = data("publish", repository, "founding", *at)
    assert published["version"] == 1

    roster = roster_from_repository(repository, (repository / "metadata" / "1.root.json").read_bytes(), AT)
    assert set(roster.states) == set(STATES)
    assert roster.central_contact("2026-11-25") == "NL"
    assert [s.code for s in roster.nodes()] == ["EE"]

    shown = run("show", repository, *at)
    assert "Kosovo" in shown
    value = data("show", repository, *at)
    assert value["central_contact"] == "NL"
    assert value["sha256"] == roster.sha256

    run("propose", "refresh", repository, "--at", AT + DAY)
    for path in online.values():
        run("sign", repository, "refresh", "--key", path, "--at", AT + DAY)
    assert "version 1" in run("publish", repository, "refresh", "--at", AT + DAY)


def test_a_new_key_joins_and_an_old_one_ends_while_staying_listed(
    federation: Federation, tmp_path: Path
) -> None:
    path = tmp_path / "cp2.pem"
    run("keygen", path, "--kid", "EE/cp/2", "--use", "notices", "--alg", "ES256")
    document = tmp_path / "ee.json"
    run(
        *("state-document", "--state", "EE", "--repository", federation.repository, "--output", document),
        *("--key", pub(path), "--end", "EE/cp/1", "--at", AT + DAY),
    )
    said = run("propose", "state-document", federation.repository, "renew-key", document, "--at", AT + DAY)
    assert "+ State EE: key EE/cp/2: notices, ES256" in said
    assert "~ State EE: key EE/cp/1: notices" in said
    federation.finish("renew-key", AT + DAY)
    keys = roster_from_repository(federation.repository, federation.root).keys_of("EE", "notices")
    assert [(key.kid, key.active_to) for key in keys] == [("EE/cp/1", AT + DAY), ("EE/cp/2", None)]


def test_every_proposal_has_its_command(federation: Federation, tmp_path: Path) -> None:
    repository, at = federation.repository, ["--at", AT]
    new = keygen(tmp_path, "EE", "governance")
    run(
        "propose",
        "membership",
        repository,
        "a",
        "FI",
        "member",
        "--accede",
        "Finland",
        "--joined",
        "2026-09-01",
        *at,
    )
    run(
        "propose",
        "membership",
        repository,
        "b",
        "JP",
        "suspended",
        "--end",
        "jp.verbale.example/log/1=7",
        *at,
    )
    run("propose", "freeze-log", repository, "c", "jp.verbale.example/log/1", "--reason", "stolen key", *at)
    run("propose", "governance-key", repository, "d", "--remove", "US/governance/1", *at)
    run("propose", "renewal", repository, "e", "root", "targets", "state-us", *at)
    run("propose", "online-keys", repository, "f", pub(keygen(tmp_path, "US", "online")), *at)
    with pytest.raises(VerbaleError, match="is taken"):
        run("propose", "governance-key", repository, "g", "--add", pub(new), *at)
    with pytest.raises(VerbaleError, match="--add, --remove"):
        run("propose", "governance-key", repository, "g", *at)
    with pytest.raises(VerbaleError, match="--accede"):
        run("propose", "membership", repository, "g", "FI", "member", "--accede", "Finland", *at)
    with pytest.raises(VerbaleError, match=r"for each of its logs: jp\.verbale\.example/log/1 is missing"):
        run("propose", "membership", repository, "g", "JP", "suspended", *at)
    with pytest.raises(VerbaleError, match="is not ORIGIN=INDEX"):
        run("propose", "membership", repository, "g", "JP", "suspended", "--end", "jp=x", *at)
    keygen(tmp_path, "EE", "log", 2)
    run("rotate", repository, "h", tmp_path / "EE-log-2.pem.pub", "--overlap", 24, *at)
    run("revoke", repository, "h", "EE/cp/1", "--at-index", 12, "--suspect-from", AT, *at)
    for kid in ("EE/cp/1", "EE/log/1"):
        with pytest.raises(VerbaleError, match="--at-index"):
            run("revoke", repository, "i", kid, *at)
    assert "nothing that it ever cosigned" in run("revoke", repository, "i", "EE/witness/1", *at)
    assert "nothing that it" not in run("revoke", repository, "j", "EE/witness/1", "--suspect-from", AT, *at)
    assert data("show", repository, *at)["drafts"] == ["a", "b", "c", "d", "e", "f", "h", "i", "j"]


def test_check_warns_in_time_and_says_what_has_expired(federation: Federation) -> None:
    run("check", federation.repository, "--at", AT, code=CHECK_FINE)
    said = run("check", federation.repository, "--at", AT + 6 * DAY, code=CHECK_SOON)
    assert "timestamp: refresh now" in said
    assert "timestamp: expired" in run(
        "check", federation.repository, "--at", AT + 8 * DAY, code=CHECK_EXPIRED
    )
    levels = data("check", federation.repository, "--at", AT + 8 * DAY, code=CHECK_EXPIRED)["roles"]
    assert levels[0]["role"] == "timestamp"


@pytest.mark.parametrize(
    ("days", "level"),
    [
        (90, "fine"),
        (60, "within 60 days"),
        (31, "within 60 days"),
        (30, "within 30 days"),
        (14, "within 14 days"),
        (0, "expired"),
    ],
)
def test_the_levels_of_warning(days: int, level: str) -> None:
    assert expiry_level("targets", AT + days * DAY, AT) == level
    assert expiry_level("state-ee", AT + days * DAY, AT) == level


def test_a_passphrase_from_a_file_opens_the_key(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    path = tmp_path / "key.pem"
    value = data(
        "keygen", path, "--kid", "EE/cp/1", "--use", "notices", "--passphrase-file", tmp_path / "secret"
    )
    assert value["kid"] == "EE/cp/1"
    assert b"ENCRYPTED" in path.read_bytes()


def test_what_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    for arguments in (
        ("show", tmp_path),
        ("check", tmp_path),
        ("review", tmp_path, "x"),
        ("propose", "refresh", tmp_path),
    ):
        with pytest.raises(VerbaleError, match="verbale roster"):
            run(*arguments)
