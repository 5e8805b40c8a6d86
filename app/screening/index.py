"""The index in memory: keys lead to words, words to names, names to parties.

Guarantees that a search sees exactly the parties that were put in and not taken out, and that what `allowed` excludes has
no part in it: no word that only hidden parties have is compared, and the best are chosen among visible ones only. Leaves to
others: where parties come from (`find`), and whether a found one is alike (`score`).

Two levels, because keys of spelling then grow with the vocabulary and not with the parties. What was loaded lies in sorted
arrays; what was added since, in dictionaries beside them, until it is worth sorting again. Not thread-safe: its owner locks.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from app.domain.party import SCHEMATA, Schema
from app.screening.alike import LONGEST, Known, flags_of, similarities, worthwhile
from app.screening.arrays import Column, Numbered, Pairs, Store, Texts, spread
from app.screening.features import (
    CONFLICT,
    NAME_FEATURES,
    OTHER_LEFT,
    PERSON_LEFT,
    QUERY_LEFT,
    model,
    name_score,
)
from app.screening.keys import (
    acronym_keys,
    blend_keys,
    identifier_key,
    joined_by,
    joined_keys,
    query_keys,
    run_keys,
    token_keys,
)
from app.screening.normalise import Name, blends
from app.screening.score import ACRONYM, BLEND, INITIAL, RUN, Comparer, similarity
from app.screening.spelling import latin
from app.screening.words import joined, token

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from numpy.typing import NDArray

    from app.screening.score import Agreement
    from app.screening.words import Token

POOL: Final = 384
"""Names whose score is estimated for one name of a query: those that share the most with it."""
CANDIDATES: Final = 32
"""Names of those that are compared word by word: the best by that estimate."""
LEAST: Final = 16
"""So many are compared even if they are hopeless: somebody may ask for the ten nearest."""
HOPELESS: Final = 5.0
"""Names whose estimate is so far below the best one's, as a logarithm of odds, are not compared."""
FRESH: Final = 4096
"""Names added to a loaded index before it is sorted again: some tens of milliseconds, seldom."""
JOINED_LEAST: Final = 0.8
"""How alike two neighbours written as one word must be to another word."""
JOINED: Final = 0.95
"""How alike a word is taken to be to neighbours that share a key with it, before they are compared."""
KEYED_AT_ONCE: Final = 8192
"""Names whose keys are made together while loading."""
MAX_MET: Final = 4000
"""Words of the vocabulary that one word of a query is compared with: those that share a key, the oldest first."""
MASKS: Final = 16
"""Kinds of callers whose view of the parties is kept."""
MAX_WORDS: Final = 400
"""Words of the vocabulary that one word of a query may meet, the most alike."""


class Indexed(NamedTuple):
    """One party as it goes in.

    Attributes:
        log_id, idx, pos: its notice, and its place in it.
        gate: issuer, TLP rank and audience of the notice, as `app.gate.may_read` takes them.
        status: 1 active, 2 withdrawn.
        schema: what it is; "LegalEntity" may be any but a thing.
        until: unix seconds after which the notice has expired; a very large number if never.
    """

    log_id: int
    idx: int
    pos: int
    gate: tuple[str, int, str | None]
    status: int
    until: int
    names: tuple[Name, ...]
    identifiers: tuple[str, ...] = ()
    schema: Schema = "LegalEntity"


class Found(NamedTuple):
    """A party with the agreement of its best name and its score; `party` is its number in this index."""

    party: int
    agreement: Agreement | None
    by_identifier: bool = False
    score: float = 0.0


@dataclass(slots=True)
class Work:
    """What searching has cost so far: words of the vocabulary and whole names that were compared."""

    words: int = 0
    names: int = 0


_Meeting = tuple[tuple[int, ...], float, "NDArray[np.uint32]", "NDArray[np.float32]"]
"""Places of a query's words; weight of the words they meet, 0 if that is their own; the names where they do; and how alike,
the least first."""

WHOLE: Final = 1e6
"""As a weight: all words of a name."""
FULL_WORD, ONE_LETTER = 0.9, 0.15
"""Weights of the words that initials stand for, as most are, and of an initial."""
BLENDED_AT_ONCE: Final = 300
"""Names that one word may be blended of, or the other way round, that are looked at: the oldest."""


FORESEEN_AT_ONCE: Final = 64
"""Words that are looked up together for several names: a name alone has up to 47, with its neighbours."""
FORESEEN_MOST: Final = 512
"""Words that are looked up before they are searched for, of persons and of others: sixteen parties have some hundred."""
REMEMBERED: Final = 8192
"""Words of queries whose like words are remembered, until a party is put in: a few megabytes."""


_LETTERS: Final = np.array([1 << n - 97 if 97 <= n <= 122 else 0 for n in range(256)], np.uint32)
"""A bit for each letter that a word may begin with, by its number."""


def _letter(word: str) -> np.uint32:
    """The bit of the letter that a word in Latin letters begins with."""
    bit: np.uint32 = _LETTERS[ord(word[0]) if word else 0]
    return bit


def _parted(
    map_: Pairs, keys: Sequence[NDArray[np.uint32]]
) -> list[tuple[NDArray[np.uint32], NDArray[np.intp]]]:
    """For each of some lists of keys all values, and for each the place of its key in all of them put together."""
    found, at = map_.find_each(np.concatenate(keys))
    part = np.repeat(np.arange(len(keys)), [len(some) for some in keys])[at]
    if len(part) and not (part[1:] >= part[:-1]).all():  # what was added since the last sorting stands behind
        order = np.argsort(part, kind="stable")
        found, at, part = found[order], at[order], part[order]
    starts = part.searchsorted(np.arange(len(keys) + 1)).tolist()
    return [(found[a:b], at[a:b]) for a, b in pairwise(starts)]


_Asked = tuple[int, tuple[int, ...], "Token", float]
"""A word that is looked for: its number among all meetings, its places, itself, and how like it one must be, at least."""
_Keyed = tuple[int, tuple[int, ...], float, "NDArray[np.uint32]", float]
"""What keys of names are looked for: the same, the weight of the words they meet, the keys, how alike they are taken to be."""


def _sought(name: Name) -> tuple[list[_Asked], list[_Keyed]]:
    """What is looked for, for each word of a name and for each two neighbours."""
    tokens, person = name.tokens, name.is_person
    # Estimates depend on the order of meetings: what a key alone tells of a word stands behind the word.
    asked: list[_Asked] = []
    keyed: list[_Keyed] = []
    for place, own in enumerate(tokens):
        asked.append((len(asked) + len(keyed), (place,), own, 0.0))
        keyed.append((len(asked) + len(keyed), (place,), max(own.weight, 1.0), joined_by(own), JOINED))
        if not person and len(tokens) > 1:
            keyed.append((len(asked) + len(keyed), (place,), len(own.latin) * 0.5, run_keys(own), RUN))
    for place, (one, other) in enumerate(pairwise(tokens)):
        # Names that write two neighbours of the query as one word. An initial and a surname are none: "ikarelin" would meet
        # every Karelin, as if the initial had.
        if person and 1 in (len(one.latin), len(other.latin)):
            continue
        both = joined(one, other)
        asked.append((len(asked) + len(keyed), (place, place + 1), both, JOINED_LEAST))
        if both.semitic:
            keyed.append((len(asked) + len(keyed), (place, place + 1), 0.0, joined_by(both), JOINED))
    every = tuple(range(len(tokens)))
    keyed.append((len(asked) + len(keyed), every, WHOLE, acronym_keys(name), ACRONYM))
    return asked, keyed


_ESTIMATED: Final = (
    "one", "agreement", "evidence", "conflict", "only_in_query", "only_in_notice", "worst_word", "equal_words",
    "common_words_only",
)  # fmt: skip
"""Of NAME_FEATURES those that meetings tell of, in the order in which `_estimates` has them."""


@cache
def _estimated() -> NDArray[np.float64]:
    """The model's weights of _ESTIMATED: a row for each; the columns are other parties and persons."""
    places = [NAME_FEATURES.index(feature) for feature in _ESTIMATED]
    return np.array([[model()[kind][at] for kind in ("other", "person")] for at in places])


_NONE: Final = token("a")
"""Stands where a word of a query cannot be written in Latin letters, and takes no part."""

_Word = tuple[str, bool, float, frozenset[int] | None]

_SCHEMA_NUMBERS: Final = {schema: number for number, schema in enumerate(SCHEMATA)}


@dataclass(frozen=True, slots=True)
class _Visible:
    """A mask of parties, and what it holds for: so many changes of the index, and a time from `since` to before `until`."""

    parties: NDArray[np.bool_]
    changes: int
    since: int
    until: int


class Index:
    """See the module."""

    def __init__(self, store: Store | None = None) -> None:
        """Hold nothing yet. `store`: where its arrays lie; None: in memory."""
        self._store = store = Store() if store is None else store
        self._words = Texts(store)
        self._word_length = Column(store, np.uint8)  # in Latin letters
        self._word_begins = Column(store, np.uint8)  # and the first of them, 0 if there is none
        self._word_flags = Column(store, np.uint8)  # see `alike.flags_of`
        self._word_keys = Pairs(store)  # key -> word
        self._by_text = Pairs(store)  # checksum of a text -> word
        self._new_ids: dict[str, int] = {}  # words since the last sorting
        self._postings = Numbered(store)  # word -> name
        self._joined = Pairs(store)  # key of joined neighbours -> name
        self._identifiers = Pairs(store)  # key -> party
        self._name_ends = Column(
            store, np.uint32
        )  # where the words of each name end, behind those of the one before
        self._name_ends.append(0)
        self._name_words = Column(store, np.uint32)
        self._name_party = Column(store, np.uint32)
        self._name_weight = Column(store, np.float32)
        self._name_letters = Column(store, np.uint32)  # with which letters its words begin
        self._name_initials = Column(store, np.uint32)  # and those that are one letter
        self._name_forms = Column(store, np.uint16)
        self._forms: list[tuple[frozenset[str], str]] = [(frozenset(), "")]
        self._form_ids: dict[tuple[frozenset[str], str], int] = {self._forms[0]: 0}
        self._party_person = Column(store, np.bool_)
        self._party_schema = Column(store, np.uint8)
        self._party_alive = Column(store, np.bool_)
        self._party_status = Column(store, np.uint8)
        self._party_until = Column(store, np.int64)
        self._party_gate = Column(store, np.uint16)
        self._party_log = Column(store, np.uint32)
        self._party_idx = Column(store, np.int64)
        self._party_pos = Column(store, np.uint16)
        self.gates: list[tuple[str, int, str | None]] = []
        self._gate_ids: dict[tuple[str, int, str | None], int] = {}
        self._new_names: list[Name] = []  # not keyed yet
        self.work = Work()
        self._opened: frozenset[int] | None = None  # gates of the search under way; None: all
        self._alikes: dict[_Word, tuple[NDArray[np.uint32], NDArray[np.float32]]] = {}
        self._fresh_names = 0
        self._changes = 0
        self._loading = True
        self._seen: dict[tuple[frozenset[int], tuple[int, ...]], _Visible] = {}
        # Room to add up in, zero between two searches: making it anew took longer than a search.
        self._total, self._once, self._marked = (
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.bool_),
        )
        self._visible_words: dict[frozenset[int], tuple[int, NDArray[np.bool_]]] = {}

    # ── putting in and taking out ─────────────────────────────────────────────────────────────────────────────────

    def add(self, party: Indexed) -> None:
        """Put a party in."""
        number = self._party_alive.size
        self._alikes.clear()
        gate = self._gate_ids.get(party.gate)
        if gate is None:
            gate = self._gate_ids[party.gate] = len(self.gates)
            self.gates.append(party.gate)
        self._party_person.append(any(name.is_person for name in party.names))
        self._party_schema.append(_SCHEMA_NUMBERS[party.schema])
        self._party_alive.append(True)
        self._party_status.append(party.status)
        self._party_until.append(party.until)
        self._party_gate.append(gate)
        self._party_log.append(party.log_id)
        self._party_idx.append(party.idx)
        self._party_pos.append(party.pos)
        live = not self._loading
        for name in party.names:
            self._add_name(number, name, live=live)
        if party.identifiers:
            keys = np.array([identifier_key(v) for v in party.identifiers], np.uint32)
            self._identifiers.add(keys, np.full(len(keys), number, np.uint32), live=live)
        self._changes += 1

    def _add_name(self, party: int, name: Name, *, live: bool) -> None:
        if not name.tokens:
            return
        number = self._name_party.size
        forms = self._form_ids.get((name.forms, name.suffix))
        if forms is None:
            forms = self._form_ids[name.forms, name.suffix] = len(self._forms)
            self._forms.append((name.forms, name.suffix))
        self._name_party.append(party)
        self._name_weight.append(name.weight)
        self._name_forms.append(forms)
        self._new_names.append(name)
        self._fresh_names += 1
        if live:
            self._key()
            if self._fresh_names > max(FRESH, number // self._store.fresh_share):
                self.sort()
        elif self._fresh_names >= self._store.segment:
            self._sort()
        elif len(self._new_names) >= KEYED_AT_ONCE:
            self._key()

    def _numbered(self, tokens: Sequence[Token]) -> list[int]:
        """The numbers of some words; those that are new get one, and their keys."""
        known = {t.text: self._new_ids.get(t.text, -1) for t in tokens}
        asked = [text for text, number in known.items() if number < 0]
        hashes = np.fromiter((zlib.crc32(text.encode()) for text in asked), np.uint32, len(asked))
        numbers, at = self._by_text.find_each(hashes)
        found = zip(self._words.at(numbers), at.tolist(), numbers.tolist(), strict=True)
        known.update({text: number for text, place, number in found if text == asked[place]})
        new: list[Token] = []
        for own in tokens:
            if known[own.text] < 0:
                known[own.text] = self._new_ids[own.text] = len(self._words)
                self._words.append(own.text)
                new.append(own)
        if new:
            self._describe(new)
        return [known[t.text] for t in tokens]

    def _describe(self, new: Sequence[Token]) -> None:
        live, first = not self._loading, np.uint32(len(self._words) - len(new))
        self._word_length.extend([min(len(own.latin), LONGEST) for own in new])
        self._word_begins.extend([ord(own.latin[0]) if own.latin else 0 for own in new])
        self._word_flags.extend([flags_of(own) for own in new])
        keys, places = token_keys(new)
        self._word_keys.add(keys, places + first, live=live)
        # Until they are sorted in they are found in `_new_ids`.
        hashes = np.fromiter((zlib.crc32(own.text.encode()) for own in new), np.uint32, len(new))
        self._by_text.add(hashes, np.arange(first, len(self._words), dtype=np.uint32), live=False)

    def _key(self) -> None:
        """Number the words and make the keys of what was put in since the last time, all at once."""
        if not self._new_names:
            return
        live, first = not self._loading, self._name_party.size - len(self._new_names)
        words = np.array(
            self._numbered(list(chain.from_iterable(name.tokens for name in self._new_names))), np.uint32
        )
        counts = np.array([len(name.tokens) for name in self._new_names])
        ends = counts.cumsum()
        self._name_ends.extend(ends + self._name_words.size)
        self._name_words.extend(words)
        names = np.repeat(np.arange(first, self._name_party.size, dtype=np.uint32), counts)
        self._postings.add(words, names, live=live)
        letters = _LETTERS[self._word_begins.array[words]]
        alone = np.where(self._word_length.array[words] == 1, letters, np.uint32(0))
        self._name_letters.extend(np.bitwise_or.reduceat(letters, ends - counts))
        self._name_initials.extend(np.bitwise_or.reduceat(alone, ends - counts))
        keys, places = joined_keys(self._new_names)
        self._joined.add(keys, places + np.uint32(first), live=live)
        self._new_names = []

    def remove(self, log_id: int, idx: int) -> None:
        """Take the parties of a notice out."""
        gone = (self._party_idx.array == idx) & (self._party_log.array == log_id)
        self._party_alive.array[gone] = False
        self._changes += 1

    def sort(self) -> None:
        """End of loading, or of many additions: sort all of it."""
        self._sort()
        self._loading = False
        self._store.settle()

    def _sort(self) -> None:
        self._key()
        for pairs in (self._word_keys, self._by_text, self._postings, self._joined, self._identifiers):
            pairs.sort()
        self._new_ids.clear()
        self._fresh_names = 0
        self._visible_words.clear()
        self._store.release()

    def rest(self) -> None:
        """Between two searches: give back what memory can be had again."""
        self._store.release()

    # ── searching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def visible(self, gates: Sequence[bool], *, statuses: Sequence[int], now: int) -> NDArray[np.bool_]:
        """Which parties may take part in a search: alive, of a status, not expired, and behind an open gate."""
        opened = frozenset(i for i, is_open in enumerate(gates) if is_open)
        which = opened, tuple(statuses)
        known = self._seen.get(which)
        if known is None or known.changes != self._changes or not known.since <= now < known.until:
            if len(self._seen) >= MASKS:
                self._seen.clear()
            known = self._seen[which] = self._look(gates, statuses, now)
        return known.parties

    def _look(self, gates: Sequence[bool], statuses: Sequence[int], now: int) -> _Visible:
        open_gates = np.array([*gates, False], np.bool_)
        wanted = np.zeros(256, np.bool_)
        wanted[list(statuses)] = True
        seen = self._party_alive.array & open_gates[self._party_gate.array]
        seen &= wanted[self._party_status.array]
        ends = self._party_until.array
        later = ends > now
        until = int(ends[later].min()) if later.any() else now + 1
        return _Visible(seen & later, self._changes, now, until)

    def search(
        self,
        names: Sequence[Name],
        identifiers: Sequence[str],
        visible: NDArray[np.bool_],
        gates: Sequence[bool],
        *,
        schema_odds: NDArray[np.float64] | None = None,
        most: int = CANDIDATES,
        comparers: Sequence[Comparer] = (),
    ) -> list[Found]:
        """The parties that share words with one of the names, or an identifier; each with its best name, in no order.

        Args:
            schema_odds: what being of each of SCHEMATA does to the odds; None: nothing.
            most: names that are compared for each of `names`.
            comparers: of the names, where the caller goes on to compare with them.
        """
        best: dict[int, tuple[float, Agreement]] = {}
        owners = self._name_party.array
        comparers = comparers or [Comparer(name) for name in names]
        words = self._open(gates)
        for place, name in enumerate(names):
            compare = comparers[place].compare
            candidates = self._candidates(name, visible, words, schema_odds, most)
            self.work.names += len(candidates)
            for party, other in zip(owners[candidates].tolist(), self._names(candidates), strict=True):
                agreement = compare(other)
                value = name_score(agreement)
                if party not in best or value > best[party][0]:
                    best[party] = (value, agreement)
        found = [Found(party, agreement, score=value) for party, (value, agreement) in best.items()]
        return found + self._by_identifier(identifiers, visible, best)

    def foresee(self, names: Sequence[Name], gates: Sequence[bool]) -> None:
        """Look up what the words of many names are like, some tens at once: less work than name by name.

        It changes nothing but the time of searches for these names that follow with the same `gates`. Names of very many
        words are looked up when they are searched for: one caller is not to hold others up for long.
        """
        words = self._open(gates)
        for person in (True, False):
            asked = {
                (own.text, least): (own, least)
                for name in names
                if name.is_person == person
                for _, _, own, least in _sought(name)[0]
            }
            every = list(asked.values())[:FORESEEN_MOST]
            for at in range(0, len(every), FORESEEN_AT_ONCE):
                self._alike(every[at : at + FORESEEN_AT_ONCE], words, person=person)

    def _open(self, gates: Sequence[bool]) -> NDArray[np.bool_] | None:
        """Begin to search behind some gates: which words are known there, None for all."""
        words = self._words_behind(gates)
        self._opened = None if words is None else frozenset(i for i, is_open in enumerate(gates) if is_open)
        return words

    def _by_identifier(
        self, identifiers: Sequence[str], visible: NDArray[np.bool_], known: Container[int]
    ) -> list[Found]:
        if not identifiers:
            return []
        keys = np.array([identifier_key(value) for value in identifiers], np.uint32)
        parties = np.unique(self._identifiers.find(keys))
        return [
            Found(int(p), None, by_identifier=True) for p in parties[visible[parties]] if int(p) not in known
        ]

    def _words_behind(self, gates: Sequence[bool]) -> NDArray[np.bool_] | None:
        """Which words some visible notice has; None if all gates are open."""
        if all(gates):
            return None
        opened = frozenset(i for i, is_open in enumerate(gates) if is_open)
        done, known = self._visible_words.get(opened, (0, np.zeros(0, np.bool_)))
        if len(known) < len(self._words):
            known = np.concatenate((known, np.zeros(len(self._words) - len(known), np.bool_)))
        if done < len(self._postings):
            is_open = np.array([*gates, False], np.bool_)
            for tokens, names in self._postings.blocks(done):
                known[tokens[is_open[self._party_gate.array[self._name_party.array[names]]]]] = True
        if len(self._visible_words) > 64:
            self._visible_words.clear()
        self._visible_words[opened] = (len(self._postings), known)
        return known

    def _names(self, which: NDArray[np.uint32]) -> list[Name]:
        """Names by number."""
        ends = self._name_ends.array
        begun, ended = ends[which], ends[which + np.uint32(1)]
        _, within = spread(begun, ended)
        tokens = [token(text) for text in self._words.at(self._name_words.array[within])]
        persons = self._party_person.array[self._name_party.array[which]].tolist()
        found, at = [], 0
        for length, person, form in zip(
            (ended - begun).tolist(), persons, self._name_forms.array[which].tolist(), strict=True
        ):
            forms, suffix = self._forms[form]
            found.append(Name("", tuple(tokens[at : at + length]), forms, person, suffix=suffix))
            at += length
        return found

    def _candidates(
        self,
        name: Name,
        visible: NDArray[np.bool_],
        words: NDArray[np.bool_] | None,
        schema_odds: NDArray[np.float64] | None,
        most: int,
    ) -> NDArray[np.uint32]:
        """The names most worth comparing, by what the words they share say."""
        parties = self._name_party.array
        if len(self._total) < len(parties):
            room = len(parties) + len(parties) // 8
            self._total, self._once = np.zeros(room, np.float32), np.zeros(room, np.float32)
            self._marked = np.zeros(room, np.bool_)
        total, once, marked = self._total, self._once, self._marked
        meetings = self._meetings(name, visible, words)
        for places, _, met, values in meetings:
            weight = sum([name.tokens[place].weight for place in places])
            # In rising order: of a name that was met twice the last one, the greatest, stays.
            once[met] = np.where(values >= 0.9, values, values * (values / 0.9) ** 2) * weight
            total[met] += once[met]  # a name that stands there twice is given the same sum twice
            marked[met] = True
        every = np.flatnonzero(marked[: len(parties)])
        numbers = every[visible[parties[every]]]
        sums = total[numbers]
        total[every] = 0
        marked[every] = False
        if not len(numbers):
            return np.zeros(
                0, np.uint32
            )  # nothing shares a word, or all that do are hidden, withdrawn or expired
        pool = max(POOL, most)
        if len(numbers) > pool:
            for own in name.tokens if name.is_person else ():
                if len(own.latin) == 1:
                    has = self._name_letters.array[numbers] & _letter(own.latin) > 0
                    sums += np.where(has, np.float32(own.weight * INITIAL), 0)
            estimate = self._shares(name, numbers, sums)
            # Ties fall by number, oldest first, so that the same index answers the same.
            if len(estimate) > 4 * pool:
                best = np.flatnonzero(estimate >= np.partition(estimate, -pool)[-pool])
                numbers, estimate = numbers[best], estimate[best]
            numbers = np.sort(numbers[np.argsort(-estimate, kind="stable")[:pool]])
        odds = self._estimates(name, numbers, meetings)
        if schema_odds is not None:
            odds += schema_odds[self._party_schema.array[parties[numbers]]]
        order = np.argsort(-odds, kind="stable")[:most]
        worth_it = odds[order] >= odds[order[0]] - HOPELESS
        worth_it[:LEAST] = True
        chosen: NDArray[np.uint32] = numbers[order[worth_it]].astype(np.uint32)
        return chosen

    def _shares(
        self, name: Name, numbers: NDArray[np.intp], sums: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What part of all words' weight met, by the sums alone."""
        matched = np.minimum(sums, name.weight)
        left = np.maximum(name.weight - matched, 0)
        other = np.maximum(self._name_weight.array[numbers] - matched, 0)
        conflict = np.minimum(left, other)
        share: NDArray[np.float32] = matched / (
            matched
            + CONFLICT * conflict
            + QUERY_LEFT * (left - conflict)
            + OTHER_LEFT * (other - conflict)
            + 1e-6
        )
        return share

    def _estimates(
        self, name: Name, numbers: NDArray[np.intp], meetings: Sequence[_Meeting]
    ) -> NDArray[np.float64]:
        """What `features.name_features` and the model would say of these names, as far as meetings tell, as log-odds.

        Which word of the listed name met is not known here, nor the order; a full comparison of the best puts that right.
        """
        once = self._once
        alike = np.zeros((len(name.tokens), len(numbers)))
        weights = np.array([t.weight for t in name.tokens])[:, None]
        beyond, worst = np.zeros(len(numbers)), np.ones(len(numbers))
        for places, theirs, met, values in meetings:
            once[numbers] = 0
            once[met] = values
            here = once[numbers]
            if theirs:
                better = here > alike[places[0]]
                beyond[better] += max(theirs - weights[list(places)].sum(), 0)
            for place in places:
                np.maximum(alike[place], here, out=alike[place])
        if name.is_person:
            for place, own in enumerate(name.tokens):
                bit = _letter(own.latin)
                kept = self._name_letters if len(own.latin) == 1 else self._name_initials
                begun = (alike[place] == 0) & (kept.array[numbers] & bit > 0)
                alike[place][begun] = INITIAL
                worst[begun] = INITIAL
                beyond[begun] += FULL_WORD - own.weight if len(own.latin) == 1 else ONE_LETTER - own.weight
        meets = alike > 0
        total = np.where(meets, weights, 0).sum(0)
        matched = (np.where(alike >= 0.9, alike, alike * (alike / 0.9) ** 2) * weights).sum(0)
        left = name.weight - total
        other = np.maximum(self._name_weight.array[numbers] - total - beyond, 0)
        conflict = np.minimum(left, other)
        left, other = left - conflict, other - conflict
        persons = self._party_person.array[self._name_party.array[numbers]]
        below = (
            total
            + CONFLICT * conflict
            + QUERY_LEFT * left
            + np.where(persons, PERSON_LEFT, OTHER_LEFT) * other
        )
        total = np.maximum(total, 0.05)
        known = (
            1.0,
            matched / np.maximum(below, 1e-6),
            np.log1p(matched),
            conflict / (conflict + total),
            left / max(name.weight, 0.1),
            other / np.maximum(self._name_weight.array[numbers], 0.1),
            np.minimum(worst, np.where(meets & (weights > 0.25), alike, 1.0).min(0)),
            np.where(alike == 1, weights, 0).sum(0) / total,
            (alike * weights).max(0) < 0.5,
        )
        found = np.zeros(len(numbers))
        for weight, value in zip(_estimated()[:, persons.view(np.uint8)], known, strict=True):
            found += weight * value
        return found

    def _meetings(
        self, name: Name, visible: NDArray[np.bool_], words: NDArray[np.bool_] | None
    ) -> list[_Meeting]:
        """For each word of the query, and for each two neighbours, the names that have one like it."""
        asked, keyed = _sought(name)
        met = self._worded(asked, words, person=name.is_person) | self._keyed(keyed)
        found = [met[n] for n in sorted(met)]
        if len(blended := blend_keys(name)):
            numbers = np.unique(self._joined.find(blended), sorted=True)
            seen = numbers[visible[self._name_party.array[numbers]]][:BLENDED_AT_ONCE]
            made = self._blended(name, seen)
            if made:
                found.append(
                    (
                        tuple(range(len(name.tokens))),
                        WHOLE,
                        np.array(made, np.uint32),
                        np.full(len(made), BLEND, np.float32),
                    )
                )
        return found

    def _worded(
        self, asked: Sequence[_Asked], words: NDArray[np.bool_] | None, *, person: bool
    ) -> dict[int, _Meeting]:
        """The names that have a word like each of some."""
        alike = self._alike([(own, least) for _, _, own, least in asked], words, person=person)
        values = np.concatenate([value for _, value in alike])
        parts = _parted(self._postings, [numbers for numbers, _ in alike])
        return {
            n: (places, 0.0, numbers, values[at])
            for (n, places, _, _), (numbers, at) in zip(asked, parts, strict=True)
        }

    def _keyed(self, keyed: Sequence[_Keyed]) -> dict[int, _Meeting]:
        """The names that have one of the keys of each, if there are any."""
        parts = _parted(self._joined, [keys for _, _, _, keys, _ in keyed])
        return {
            n: (places, theirs, numbers, np.full(len(numbers), value, np.float32))
            for (n, places, theirs, _, value), (numbers, _) in zip(keyed, parts, strict=True)
            if len(numbers)
        }

    def _blended(self, name: Name, numbers: NDArray[np.uint32]) -> list[int]:
        """Which of some names are one word made of beginnings of a name's words, or such words, where that is one word."""
        alone = len(name.tokens) == 1
        if not alone:
            ends = self._name_ends.array
            numbers = numbers[ends[numbers + np.uint32(1)] - ends[numbers] == 1]
        if not len(numbers):
            return []
        return [
            number
            for number, other in zip(numbers.tolist(), self._names(numbers), strict=True)
            if not other.is_person
            and (blends(name.tokens[0].latin, other) if alone else blends(other.tokens[0].latin, name))
        ]

    def _alike(
        self, asked: Sequence[tuple[Token, float]], words: NDArray[np.bool_] | None, *, person: bool
    ) -> list[tuple[NDArray[np.uint32], NDArray[np.float32]]]:
        """The words of the vocabulary that are like each of some more than so much, and how like it, the least first."""
        which: list[_Word] = [(own.text, person, least, self._opened) for own, least in asked]
        if len(self._alikes) > REMEMBERED:
            self._alikes.clear()
        new = [n for n, word in enumerate(which) if word not in self._alikes]
        if new:
            compared = self._compared([asked[n][0] for n in new], words, person=person)
            for n, (numbers, values) in zip(new, compared, strict=True):
                order = np.lexsort((numbers, values))
                order = order[values[order] > asked[n][1]][-MAX_WORDS:]
                self._alikes[which[n]] = numbers[order], values[order].astype(np.float32)
        return [self._alikes[word] for word in which]

    def _compared(
        self, asked: Sequence[Token], words: NDArray[np.bool_] | None, *, person: bool
    ) -> list[tuple[NDArray[np.uint32], NDArray[np.float64]]]:
        """For each of some words those of the vocabulary that share a key with it, and how like it each is."""
        keys, kinds = zip(*map(query_keys, asked), strict=True)
        of_key = np.repeat(np.arange(len(asked), dtype=np.uint64), [len(own) for own in keys])
        met, at = self._word_keys.find_each(np.concatenate(keys))
        pairs = of_key[at] << np.uint64(32) | met
        each = np.unique(pairs)
        numbers = (each & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        if words is not None:
            each, numbers = each[words[numbers]], numbers[words[numbers]]
        of = (each >> np.uint64(32)).astype(np.intp)
        starts = of.searchsorted(np.arange(len(asked) + 1))
        if len(each) > MAX_MET:
            kept = np.arange(len(of)) - starts[of] < MAX_MET
            each, numbers, of = each[kept], numbers[kept], of[kept]
            starts = of.searchsorted(np.arange(len(asked) + 1))
        self.work.words += len(each)
        how = np.concatenate(kinds)[at]
        sure = np.flatnonzero(how)
        place = each.searchsorted(pairs[sure])
        place[place == len(each)] = 0
        there = each[place] == pairs[sure] if len(each) else np.zeros(len(sure), np.bool_)
        shared = np.zeros(len(each), np.uint8)
        np.bitwise_or.at(shared, place[there], how[sure[there]])
        values = self._similar(asked, of, numbers, shared, person=person)
        return [(numbers[a:b], values[a:b]) for a, b in pairwise(starts.tolist())]

    def _similar(
        self,
        asked: Sequence[Token],
        of: NDArray[np.intp],
        numbers: NDArray[np.uint32],
        shared: NDArray[np.uint8],
        *,
        person: bool,
    ) -> NDArray[np.float64]:
        """How alike pairs are of a word of a query and one of the vocabulary."""
        values = np.zeros(len(numbers))
        spelled = np.array([own.latin != "" for own in asked], np.bool_)[of]
        for i in np.flatnonzero(~spelled).tolist():  # of a script that nothing here reads
            (text,) = self._words.at(numbers[i : i + 1])
            values[i] = similarity(asked[of[i]], token(text), person=person)[0]
        if not spelled.all():
            of, numbers, shared = of[spelled], numbers[spelled], shared[spelled]
        lengths, begins = self._word_length.array[numbers], self._word_begins.array[numbers]
        worth = worthwhile(asked, of, lengths, begins, shared, person=person)
        at = np.flatnonzero(spelled)[worth]
        numbers = numbers[worth]
        texts = self._words.at(numbers)
        known = Known(
            of[worth],
            texts,
            [latin(text) for text in texts],
            lengths[worth],
            begins[worth],
            self._word_flags.array[numbers],
            shared[worth],
        )
        if texts:
            values[at] = similarities([own if own.latin else _NONE for own in asked], known, person=person)
        return values

    # ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────

    def keys_of(self, parties: Sequence[int]) -> list[tuple[int, int, int]]:
        """Log, index and position of some parties."""
        which = np.array(parties, np.intp)
        columns = self._party_log, self._party_idx, self._party_pos
        return list(zip(*[column.array[which].tolist() for column in columns], strict=True))

    def schemas_of(self, parties: Sequence[int]) -> NDArray[np.uint8]:
        """The places of some parties' schemas in SCHEMATA."""
        schemas: NDArray[np.uint8] = self._party_schema.array[np.array(parties, np.intp)]
        return schemas

    @property
    def parties(self) -> int:
        """Parties held."""
        return int(self._party_alive.array.sum())

    @property
    def names(self) -> int:
        """Names held, those of parties taken out included."""
        return self._name_party.size

    @property
    def vocabulary(self) -> int:
        """Different words."""
        return len(self._words)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(
            p.nbytes
            for p in (self._word_keys, self._by_text, self._postings, self._joined, self._identifiers)
        )
