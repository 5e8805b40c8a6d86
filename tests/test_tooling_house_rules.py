"""Each house rule finds what it is for, and the locks are as an installation needs them."""

import re
from pathlib import Path

import pytest

from scripts import house_rules

ROOT = house_rules.ROOT
LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-dev.lock")


@pytest.mark.parametrize(
    ("name", "line", "advice"),
    [
        ("a.txt", "-----BEGIN " + "PRIVATE KEY-----", "private key"),
        ("a.txt", "-----BEGIN OPENSSH " + "PRIVATE KEY-----", "private key"),
        ("a.json", '{"kty": "OKP", "' + 'd": "' + "n" * 43 + '"}', "private JWK"),
        ("a.py", "key = 'whsk" + "_" + "A" * 44 + "'", "webhook signing secret"),
        ("a.lock", "six==1.17.0 @ https:" + "//example.org/six.whl", "address in a lock"),
        ("README.md", "see https:/" + "/pypi" + ".org/project/six", "host of a package registry"),
        ("bin/x", "pip install --index" + "-url=x six", "chooses an index"),
        ("app/x.py", "DATA = '/ho" + "me/anna/data'", "path of one machine"),
        ("app/x.py", "# TO" + "DO: later", "to-do"),
        ("keys/ee.seed", "anything", "and nothing else"),
    ],
)
def test_a_breach_is_found_where_it_is(
    name: str, line: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"first line\n{line}\n")
    monkeypatch.setattr(house_rules, "ROOT", tmp_path)
    found = list(house_rules.breaches([name], house_rules.RULES))
    assert len(found) == 1, found
    assert found[0].startswith((f"{name}:2: ", "keys/"))
    assert advice in found[0]


@pytest.mark.parametrize(
    "line",
    [
        "# TO" + "DO(#12): when the second node exists",
        "tmpfs: /tmp",
        "$HOME/tmp/x",
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_only_looks_like_a_breach_is_left_alone(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.py").write_text(line)
    monkeypatch.setattr(house_rules, "ROOT", tmp_path)
    assert list(house_rules.breaches(["x.py"], house_rules.RULES)) == []


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_each_pin_of_a_lock_has_a_hash_and_no_line_is_an_option(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert pins(lock)
    for number, line in enumerate(lines):
        assert re.match(r"[a-z0-9]|    --hash=sha256:[0-9a-f]{64}|    # ", line), line
        if line[0] != " ":
            assert lines[number + 1].startswith("    --hash=sha256:"), line


def test_what_is_tested_is_what_runs() -> None:
    assert (pins("requirements.lock") | pins("requirements-build.lock")).items() <= pins(
        "requirements-dev.lock"
    ).items()
