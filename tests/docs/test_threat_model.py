"""docs/threat-model.md: every threat names a control, and every control a test that exists, or says that it is open."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
LESSONS = 41


def rows() -> list[list[str]]:
    """The cells of every row of a table, headings left out; the number of a lesson is the first of four."""
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and "---" not in line and "threat" not in cells[:2]:
            found.append(cells)
    return found


def test_every_row_names_a_test_that_exists_or_says_that_it_is_open() -> None:
    assert rows()
    for cells in rows():
        _, control, named = cells[-3:]
        assert control, cells
        if control == "**open**":
            assert not named, cells
            continue
        names = re.findall(r"`(?:(tests/[\w/]+\.py): )?(test_\w+)`", named)
        assert names, cells
        assert re.fullmatch(r"(`[^`]+`(, )?)+", named), cells
        file = ""
        for path, name in names:
            file = path or file
            source = (ROOT / file).read_text(encoding="utf-8")
            assert f"def {name}(" in source, f"{file} has no {name}"


def test_every_lesson_has_its_row_once() -> None:
    numbers = [int(cells[0]) for cells in rows() if len(cells) == 4]
    assert numbers == list(range(1, LESSONS + 1))
