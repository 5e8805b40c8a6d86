"""Documents and code name the same things: links, settings, routes, commands, problems, metrics, actions, tests."""

import ast
import re
import shlex
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from app.cli import COMMANDS, _load
from app.main import create_app
from app.models import Base
from app.problems import PROBLEMS
from app.queries.filters import PARAMETERS
from app.queries.notices import DEFAULT_LIMIT, MAX_LIMIT
from app.settings import Settings, load

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("keys/*.md"),
        *ROOT.glob("app/data/*/README.md"),
    }
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
README, ARCHITECTURE, OPERATIONS, API, CONTRIBUTING = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "ARCHITECTURE.md", "docs/operations.md", "docs/api.md", "CONTRIBUTING.md")
)
ALL = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
CODE = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("app/**/*.py")}


# ── links ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_between_documents_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in anchors(file), f"{target}: {file.name} has no such heading"


def test_every_document_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", prose(page)):
            file = (page.parent / target).resolve()
            if file.is_dir():
                ahead += [one for one in file.glob("*.md") if one.name == "README.md"]
            elif file.suffix == ".md":
                ahead.append(file)
    assert not {str(page.relative_to(ROOT)) for page in PAGES if page not in seen}


def test_every_file_that_a_document_names_exists() -> None:
    pattern = r"`((?:app|tests|docs|bin|scripts|migrations)/[\w./-]*\w)(?:: |`)"
    for page in PAGES:
        for name in re.findall(pattern, page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


# ── operations ────────────────────────────────────────────────────────────────────────────────────────────────────


def shown(default: object) -> str:
    if default is MISSING:
        return "required"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple) and default:
        return f"`{', '.join(default)}`"
    return f"`{default}`" if default not in ("", ()) else "none"


def test_the_table_of_settings_is_the_settings() -> None:
    expected = [f"| `{f.name}` | {shown(f.default)} | {f.metadata['doc']} |" for f in fields(Settings)]
    table = OPERATIONS.split("| setting | default | meaning |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    assert table.splitlines() == expected


def called(*functions: str) -> list[ast.Call]:
    """Every call of a function or method of one of these names."""
    return [
        node
        for text in CODE.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", None) in functions or getattr(node.func, "attr", None) in functions)
    ]


def test_every_metric_has_a_row_and_every_row_is_a_metric() -> None:
    made = called(
        "_gauge",
        "family",
        "GaugeMetricFamily",
        "CounterMetricFamily",
        "HistogramMetricFamily",
        "Histogram",
        "Counter",
    )
    names = set()
    for call in made:
        first = call.args[0] if call.args else None
        if isinstance(first, ast.Constant) and str(first.value).startswith("verbale_"):
            counts = getattr(call.func, "id", "") in ("Counter", "CounterMetricFamily")
            names.add(f"{first.value!s}_total" if counts else str(first.value))
    assert set(re.findall(r"^\| `(verbale_\w+)` \|", OPERATIONS, re.MULTILINE)) == names


def test_every_action_of_the_log_has_a_row_and_every_row_is_an_action() -> None:
    actions = set()
    for path, text in CODE.items():
        if path.relative_to(ROOT / "app").parts[0] in ("demo", "bench", "interop"):
            continue
        actions |= set(re.findall(r'"action": "([\w.-]+)"', text))
    rows = re.findall(
        r"^\| ((?:`[\w.-]+`(?:, )?)+) \| [a-z, ]+ \|", OPERATIONS.split("## Logs")[1], re.MULTILINE
    )
    assert {action for row in rows for action in re.findall(r"`([\w.-]+)`", row)} == actions


# ── the surface ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Unopened:
    """A node of which only the settings are asked while routes are put together."""

    def __init__(self, folder: Path) -> None:
        file = folder / "node.toml"
        file.write_text(
            'state = "EE"\norigin = "ee.example/log/1"\ndata_dir = "."\npublic_url = "https://ee.example"\n'
        )
        self.settings = load(file, environment={})


def routes(folder: Path) -> dict[str, Any]:
    app = create_app(_Unopened(folder))  # type: ignore[arg-type]  # see the class
    return app.openapi()["paths"]


def test_the_api_page_names_every_route_and_no_other(tmp_path: Path) -> None:
    def plain(path: str) -> str:
        return re.sub(r"\{\w+\}", "{}", path)

    told = {plain(path) for path in re.findall(r"[` ](/[\w{}/.-]+)`", API)}
    pages = {"/docs", "/openapi.json", "/problems"}
    assert told - pages == {plain(path) for path in routes(tmp_path)}


def test_the_table_of_parameters_is_the_query_language() -> None:
    expected = [f"| `{n}` | {'no' if p.single else 'yes'} | {p.doc} |" for n, p in PARAMETERS.items()]
    table = API.split("| parameter | repeat | |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    assert table.splitlines() == expected
    assert f"1 to {MAX_LIMIT}, default {DEFAULT_LIMIT}" in API


def test_every_problem_has_a_page_and_every_code_in_the_documents_is_one() -> None:
    page = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## ([a-z-]+)$", page, re.MULTILINE)) == PROBLEMS.keys()


def commands(group: Any, prefix: str = "") -> list[str]:
    names = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            names += commands(command, f"{prefix}{name} ")
        else:
            names.append(f"{prefix}{name}")
    return names


def test_every_command_is_in_the_documents() -> None:
    told = re.sub(r"\s+", " ", ALL)
    for top in COMMANDS:
        loaded = _load(top)
        for name in commands(loaded, f"{top} ") if hasattr(loaded, "commands") else [top]:
            words = name.split()
            several = rf"`?{words[0]} .{{0,120}}\b{words[-1]}\b"
            assert re.search(re.escape(name), told) or re.search(several, told), (
                f"no document names `verbale {name}`"
            )


# ── README and CONTRIBUTING ───────────────────────────────────────────────────────────────────────────────────────


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


VERBALE_LINES = [
    line for page in PAGES for line in shell_lines(page.read_text(encoding="utf-8")) if "verbale " in line
]


@pytest.mark.parametrize("line", VERBALE_LINES)
def test_a_command_line_of_the_documents_is_one_that_verbale_takes(line: str) -> None:
    calls = re.findall(r"(?:^|[\s(])(?:\.venv/bin/)?verbale ((?:[a-z-][\w-]*).*?)(?:\s[|>#].*|\)?$)", line)
    for call in calls:
        words = shlex.split(re.sub(r"\)$", "", call))
        if words[0].startswith("-"):
            continue
        command: Any = _load(words[0])
        words = words[1:]
        while hasattr(command, "commands") and (words or not command.invoke_without_command):
            command, words = command.commands[words[0]], words[1:]
        # Parses options and arguments as they are, and calls nothing.
        command.make_context("verbale", words)
    assert calls, line


def test_the_scripts_that_readme_and_contributing_call_exist() -> None:
    for text in (README, CONTRIBUTING):
        for line in shell_lines(text):
            word = shlex.split(line, comments=True)[0]
            if word.startswith("bin/"):
                script = ROOT / word
                assert script.is_file(), word
                assert script.stat().st_mode & 0o111, word


# ── ARCHITECTURE ──────────────────────────────────────────────────────────────────────────────────────────────────


def defined(path: Path) -> set[str]:
    """Names a module defines, with and without their class."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return names


def test_every_function_that_the_architecture_names_is_where_it_says() -> None:
    for name, functions in re.findall(r"`((?:app/)?[\w/]+\.py): ([\w.]+)`", ARCHITECTURE + CONTRIBUTING):
        path = ROOT / (name if name.startswith(("app/", "tests/")) else f"app/{name}")
        assert path.is_file(), name
        text = path.read_text(encoding="utf-8")
        assert functions in defined(path) or re.search(rf"^{functions}\b", text, re.MULTILINE), (
            f"{name}: {functions}"
        )


def test_every_test_that_holds_an_invariant_exists() -> None:
    rows = [line for line in ARCHITECTURE.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) >= 8
    for row in rows:
        cell = row.split(" | ")[-1]
        file = None
        for name in re.findall(r"`([^`]+)`", cell):
            where, _, test = name.rpartition(": ")
            file = ROOT / where if where else file
            assert file is not None, name
            assert test in defined(file), f"{file}: {test}"
        assert file is not None, row


def test_every_table_belongs_to_a_family() -> None:
    section = ARCHITECTURE.split("## Tables")[1].split("\n## ")[0]
    told = {
        name
        for row in re.findall(r"^\| \*\*.*$", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row.split(" | ")[1])
    }
    assert told == Base.metadata.tables.keys()


def test_every_part_of_the_code_is_in_the_architecture() -> None:
    parts = {
        path.name
        for path in (ROOT / "app").iterdir()
        if path.is_dir() and path.name not in ("__pycache__", "data")
    }
    for part in parts:
        assert f"`{part}/`" in ARCHITECTURE, part


def test_every_decision_is_in_the_list_and_numbered_once() -> None:
    pages = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))
    listed = re.findall(r"\[(\d{4})\]\((\1-[\w-]+\.md)\)", (ROOT / "docs" / "adr" / "README.md").read_text())
    assert [name for _, name in listed] == pages
    assert [name[:4] for name in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for name in pages:
        text = (ROOT / "docs" / "adr" / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {name[:4]}: ")
        for part in ("Context", "Decision", "Consequences", "Alternatives"):
            assert f"**{part}.**" in text, f"{name}: {part}"
        assert "The price:" in " ".join(text.split()), f"{name} says no price"
