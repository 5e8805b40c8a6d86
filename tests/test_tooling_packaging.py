"""What is built and shipped is what was written."""

import fnmatch
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_file_beside_the_code_goes_into_the_wheel() -> None:
    patterns = ["*.py", *PYPROJECT["tool"]["setuptools"]["package-data"]["*"]]
    files = [path for top in ("app", "migrations") for path in (ROOT / top).rglob("*") if path.is_file()]
    left_out = [
        str(path.relative_to(ROOT))
        for path in files
        if "__pycache__" not in path.parts and not any(fnmatch.fnmatch(path.name, each) for each in patterns)
    ]
    assert left_out == []


def test_the_image_may_copy_what_the_dockerfile_asks_for_and_nothing_else() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {source for line in copies for source in line.split()} == allowed


def test_the_build_back_end_of_the_lock_is_the_one_that_a_build_asks_for() -> None:
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]


def test_the_image_and_compose_ask_for_health_in_the_same_way() -> None:
    assert 'CMD ["verbale", "health"]' in (ROOT / "Dockerfile").read_text()
    assert "test: [CMD, verbale, health]" in (ROOT / "compose.yaml").read_text()
