"""Rules about the text under version control that no linter knows: secrets, hosts, paths of a machine, to-dos.

Guarantees: exit status 0 means that no file under version control (or about to be) breaks a rule below; otherwise each
breach is printed as `path:line: what, and what to do`. Reads files and changes nothing.

    scripts/house_rules.py [FILE...]     all files without arguments
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent

CODE = re.compile(r"\.(py|sh|toml|ya?ml|css|js|html|mako)$|^(bin/|\.ci/|Dockerfile)")
TEXT = re.compile(CODE.pattern + r"|\.(md|lock|txt|cfg)$|^[^/]*$")

PUBLIC = re.compile(r"keys/([^/]+\.pub|root\.json|README\.md)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern that may not occur, in the files whose path matches `where`, and what to do about it."""

    advice: str
    pattern: re.Pattern[str]
    where: re.Pattern[str] = re.compile("")


RULES = (
    # A key that was once committed is public for ever: anybody's clone keeps it.
    Rule(
        "a private key: remove it, and treat the key as lost",
        re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s*$"),
    ),
    Rule(
        "a private JWK: remove it, and treat the key as lost",
        re.compile(r'"d"\s*:\s*"[A-Za-z0-9_-]{43}"'),
    ),
    Rule(
        "a webhook signing secret: remove it, and treat it as lost",
        re.compile(r"\bwhs(?:k|ec)_[A-Za-z0-9+/]{40,}"),
    ),
    # Whoever installs or fetches decides from where; a host named here would decide it for them.
    Rule(
        "the host of a package registry: name the package, not the place",
        re.compile(
            r"\b(?:[a-z0-9-]+\.)*(?:pypi|pythonhosted|npmjs|yarnpkg|crates|rubygems|maven)\.(?:org|com|io|net)\b"
            r"|\b(?:deb|ftp|security|snapshot)\.debian\.(?:org|net)\b|\b(?:proxy|sum)\.golang\.org\b",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "an address in a lock: locks name versions and hashes only",
        re.compile(r"\w+://"),
        re.compile(r"\.lock$"),
    ),
    Rule(
        "an option that chooses an index: leave it to the machine's own settings",
        re.compile(r"--(?:extra-)?index-url[= ]|--find-links[= ]"),
        re.compile(TEXT.pattern),
    ),
    Rule(
        "a path of one machine: make it relative, or take it from a setting",
        re.compile(r"(?<![\w.*~}])/(?:work|home|root|Users|tmp)/\w"),
        TEXT,
    ),
    Rule(
        "a to-do that nobody is told of: put the number of an open issue behind the word, as in (#12)",
        re.compile(r"\b(?:T[O]DO|F[I]XME)\b(?!\(#\d+\))"),  # spelt so as not to find itself
        CODE,
    ),
)

# Breaches that are right, each with its reason: {(path, text found)}.
ARGUED: frozenset[tuple[str, str]] = frozenset()


def tracked() -> Iterator[str]:
    """Yield the paths, relative to ROOT, that are under version control or would be added by `git add`."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 -- the user's git
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if git.returncode == 0:
        yield from filter(None, git.stdout.decode().split("\0"))
        return
    for folder, subfolders, names in os.walk(ROOT):  # an exported tree: there is no version control to ask
        subfolders[:] = [name for name in subfolders if not name.startswith(".") or name == ".ci"]
        yield from (str((Path(folder) / name).relative_to(ROOT)) for name in names)


def index_hosts() -> Iterator[str]:
    """Yield the hosts from which this machine's pip installs, which nothing here may name either."""
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    for address in re.findall(r"https?://[^\s'\"]+", pip.stdout):
        if host := urlsplit(address).hostname:
            yield host


def breaches(paths: Iterable[str], rules: Iterable[Rule]) -> Iterator[str]:
    """Yield one line for a person for each breach in the text files among `paths`."""
    rules = tuple(rules)
    for path in paths:
        if path.startswith("keys/") and not PUBLIC.fullmatch(path):
            yield f"{path}:1: keys/ holds public keys, the demo roster's root and its README, and nothing else"
        file = ROOT / path
        if file.is_symlink() or not file.is_file():
            continue
        raw = file.read_bytes()
        if b"\0" in raw:
            continue
        applying = [rule for rule in rules if rule.where.search(path)]
        for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), start=1):
            for rule in applying:
                if (found := rule.pattern.search(line)) and (path, found.group()) not in ARGUED:
                    yield f"{path}:{number}: {rule.advice}"


def main(arguments: list[str]) -> int:
    """Check the named files, or all, and return the exit status."""
    hosts = sorted(set(index_hosts()))
    rules = [*RULES]
    if hosts:
        pattern = re.compile("|".join(map(re.escape, hosts)), re.IGNORECASE)
        rules.append(Rule("the host of this machine's package index: leave it out", pattern))
    found = list(breaches(arguments or sorted(tracked()), rules))
    for breach in found:
        print(breach)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
