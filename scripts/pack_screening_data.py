"""Make the data of screening from its sources: `app/screening/data/*`. Run when a source has a new version.

    python scripts/pack_screening_data.py RIGOUR_DATA CSL.csv.gz

RIGOUR_DATA is the folder `rust/data` of the source distribution of rigour (MIT; `names/person_names.txt` holds Wikidata,
CC0). CSL.csv.gz is a Consolidated Screening List of the United States Government (public domain): of it only counts are
kept, of words that stand in many entries, and no name.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from app.screening.spelling import latin, words_of

OUT = Path(__file__).resolve().parent.parent / "app" / "screening" / "data"
LEAST = 8
"""A word is counted if it stands in so many entries: what fewer share might be a person's own name."""


def groups(source: Path) -> None:
    """Words -> numbers of the name groups they belong to, as sorted CRC-32 and a ragged list."""
    members: dict[str, set[int]] = {}
    number = 0
    for line in source.read_text(encoding="utf-8").splitlines():
        forms, _, _ = line.rpartition(" => ")
        # "abdul rahman" is written as one word as well, and in Arabic always: two words count joined.
        words = {"".join(w) for form in forms.split(",") if 1 <= len(w := words_of(form)) <= 2}  # noqa: PLR2004
        if len(words) < 2:  # noqa: PLR2004 - a group of one says nothing
            continue
        for word in words:
            members.setdefault(word, set()).add(number)
        number += 1
    # Spellings in Latin letters that differ by accents only have become one word.
    by_hash: dict[int, set[int]] = {}
    for word, numbers in members.items():
        by_hash.setdefault(zlib.crc32(word.encode()), set()).update(numbers)
    hashes = np.array(sorted(by_hash), dtype=np.uint32)
    lengths = np.array([min(len(by_hash[int(h)]), 255) for h in hashes], dtype=np.uint8)
    flat = np.array([g for h in hashes for g in sorted(by_hash[int(h)])[:255]], dtype=np.uint32)
    gaps = np.diff(hashes, prepend=np.uint32(0)).astype(np.uint32)
    raw = b"".join(
        (
            np.array([len(hashes), len(flat), number], dtype="<u4").tobytes(),
            _planes(gaps),
            lengths.tobytes(),
            _planes(flat),
        )
    )
    with gzip.GzipFile(OUT / "name_groups.gz", "wb", 9, mtime=0) as out:
        out.write(raw)
    print(f"{len(hashes)} words in {number} groups, {(OUT / 'name_groups.gz').stat().st_size} bytes")


def _planes(numbers: np.ndarray) -> bytes:
    """Little-endian bytes, all lowest first: the high bytes are mostly zero and pack well."""
    return np.ascontiguousarray(numbers.astype("<u4").view(np.uint8).reshape(-1, 4).T).tobytes()


def words(data: Path, csl: Path) -> None:
    """Legal forms, words of organisations, particles and titles of persons, numbers, counts."""
    forms: dict[str, str] = {}
    for entry in json.loads((data / "names/org_types.json").read_text(encoding="utf-8")):
        kind = entry.get("generic") or entry.get("display") or entry.get("compare") or ""
        for alias in [*entry["aliases"], entry.get("display") or "", entry.get("compare") or ""]:
            phrase = " ".join(words_of(alias))
            if len(phrase) > 1:
                forms.setdefault(phrase, kind.upper())
    symbols = json.loads((data / "names/symbols.json").read_text(encoding="utf-8"))
    classes: dict[str, list[str]] = {}
    for family in ("org_symbols", "org_domains"):
        for name, phrases in symbols[family].items():
            for phrase in phrases:
                listed = words_of(phrase)
                if len(listed) == 1:
                    classes.setdefault(listed[0], []).append(name)
    nicknames = [
        sorted({w[0] for n in names if len(w := words_of(n)) == 1})
        for family in ("person_nick", "person_name_parts")
        for names in symbols[family].values()
    ]
    ordinals: dict[str, int] = {}
    for entry in json.loads((data / "text/ordinals.json").read_text(encoding="utf-8")):
        for form in entry["forms"]:
            listed = words_of(form)
            if len(listed) == 1 and len(listed[0]) > 2 and not listed[0].isdigit():  # noqa: PLR2004 - "no", "ii" say more
                ordinals.setdefault(listed[0], entry["number"])
    stop = json.loads((data / "names/stopwords.json").read_text(encoding="utf-8"))
    titles = {w[0] for p in stop["person_name_prefixes"] if len(w := words_of(p)) == 1}
    (OUT / "words.json").write_text(
        json.dumps(
            {
                "forms": dict(sorted(forms.items())),
                "classes": {w: sorted(set(c)) for w, c in sorted(classes.items())},
                "nicknames": nicknames,
                "ordinals": dict(sorted(ordinals.items())),
                "titles": sorted(titles),
                "counts": counts(csl),
            },
            ensure_ascii=False,
            indent=0,
            separators=(",", ":"),
        )
        + "\n",
        encoding="utf-8",
    )
    print(
        f"{len(forms)} legal forms, {len(classes)} words of organisations; words.json {(OUT / 'words.json').stat().st_size}"
    )


def counts(csl: Path) -> dict[str, int]:
    """How many entries of a real list hold a word."""
    found: Counter[str] = Counter()
    with gzip.open(csl, "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            names = [row["name"], *row["alt_names"].split("; ")]
            found.update({latin(word) for name in names for word in words_of(name)})
    return {word: n for word, n in sorted(found.items()) if n >= LEAST and word}


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    groups(Path(sys.argv[1]) / "names/person_names.txt")
    words(Path(sys.argv[1]), Path(sys.argv[2]))
