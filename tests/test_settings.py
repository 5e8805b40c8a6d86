"""Settings that would not work, or not be safe, are refused with what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.errors import UnsafeSettings
from app.settings import load, to_toml

GOOD = {
    "state": "EE",
    "origin": "ee.example/log/1",
    "data_dir": ".",
    "public_url": "https://ee.example",
}


def settings_file(folder: Path, **changes: object) -> Path:
    path = folder / "node.toml"
    path.write_text(to_toml(GOOD | changes), "utf-8")
    return path


def test_good_settings_load(tmp_path: Path) -> None:
    assert load(settings_file(tmp_path), environment={}).public_url == "https://ee.example"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"public_url": "https://ee.example/verbale"}, "nothing more"),
        ({"public_url": "https://user@ee.example"}, "nothing more"),
        ({"public_url": "http://ee.example"}, "plain http"),
        ({"public_url": "https://ee.example/"}, "trailing slash"),
        ({"state": "ZZ"}, "Subscribing State"),
        ({"origin": "ee.example"}, "log/1"),
        ({"listen_port": 70_000}, "listen_port"),
    ],
)
def test_what_peers_could_not_sign_for_or_reach_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UnsafeSettings, match=said):
        load(settings_file(tmp_path, **changes), environment={})


def test_an_unknown_setting_is_refused_in_either_place(tmp_path: Path) -> None:
    path = settings_file(tmp_path)
    with pytest.raises(UnsafeSettings, match="VERBALE_MAX_BODY_BITES"):
        load(path, environment={"VERBALE_MAX_BODY_BITES": "1"})
    path.write_text(path.read_text("utf-8") + "max_body_bites = 1\n", "utf-8")
    with pytest.raises(UnsafeSettings, match="max_body_bites"):
        load(path, environment={})
