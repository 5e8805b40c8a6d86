"""The index in memory: keys lead to words, words to names, names to parties.

Guarantees that a search sees exactly the parties that were put in and not taken out, and that what `allowed` excludes has
no part in it: no word that only hidden parties have is compared, and the best are chosen among visible ones only. Leaves to
others: where parties come from (`find`), and whether a found one is alike (`score`).

Two levels, because keys of spelling then grow with the vocabulary and not with the parties. What was loaded lies in sorted
arrays; what was added since, in dictionaries beside them, until it is worth sorting again. Not thread-safe: its owner locks.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from app.screening.features import CONFLICT, OTHER_LEFT, QUERY_LEFT, name_score, sharpened
from app.screening.keys import identifier_key, joined_by, joined_keys, token_keys
from app.screening.normalise import Name
from app.screening.score import Comparer, similarity
from app.screening.words import token

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from numpy.typing import NDArray

    from app.screening.score import Agreement
    from app.screening.words import Token

CANDIDATES: Final = 48
"""Names that are compared word by word for one name of a query."""
PRUNED: Final = 0.4
"""Names whose estimate is below this part of the best one's are not compared."""
FRESH: Final = 4096
"""Names added to a loaded index before it is sorted again: some tens of milliseconds, seldom."""
JOINED_LEAST: Final = 0.8
"""How alike two neighbours written as one word must be to another word."""
KEYED_AT_ONCE: Final = 8192
"""Names whose keys are made together while loading."""
MAX_MET: Final = 4000
"""Words of the vocabulary that one word of a query is compared with: those that share a key, the oldest first."""
MASKS: Final = 16
"""Kinds of callers whose view of the parties is kept."""
MAX_WORDS: Final = 400
"""Words of the vocabulary that one word of a query may meet, the most alike."""


class _Column:
    """A numpy array that grows at its end."""

    def __init__(self, dtype: Any, size: int = 1024) -> None:  # noqa: ANN401 - what numpy takes
        self._data = np.zeros(size, dtype)
        self.size = 0

    def append(self, value: Any) -> None:  # noqa: ANN401 - a number
        if self.size == len(self._data):
            self._grow(self.size + 1)
        self._data[self.size] = value
        self.size += 1

    def extend(self, values: Any) -> None:  # noqa: ANN401 - numbers
        end = self.size + len(values)
        if end > len(self._data):
            self._grow(end)
        self._data[self.size : end] = values
        self.size = end

    def _grow(self, least: int) -> None:
        grown = np.zeros(max(least, len(self._data) * 3 // 2), self._data.dtype)
        grown[: self.size] = self._data[: self.size]
        self._data = grown

    @property
    def array(self) -> NDArray[Any]:
        return self._data[: self.size]


class _Pairs:
    """A map of many numbers to many numbers: sorted arrays, and a dictionary of what came after."""

    def __init__(self) -> None:
        self._keys: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._values: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._new_keys, self._new_values = array("I"), array("I")
        self._fresh: dict[int, list[int]] = {}

    def add(self, keys: NDArray[np.uint32], values: NDArray[np.uint32], *, live: bool) -> None:
        self._new_keys.frombytes(keys.tobytes())
        self._new_values.frombytes(values.tobytes())
        if live:
            for key, value in zip(keys.tolist(), values.tolist(), strict=True):
                self._fresh.setdefault(key, []).append(value)

    def sort(self) -> None:
        """Sort what came since in with the rest."""
        keys, values = np.frombuffer(self._new_keys, np.uint32), np.frombuffer(self._new_values, np.uint32)
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        if len(self._keys):
            at = self._keys.searchsorted(keys, "right")
            keys, values = np.insert(self._keys, at, keys), np.insert(self._values, at, values)
        self._keys, self._values = keys, values
        self._new_keys, self._new_values = array("I"), array("I")
        self._fresh = {}

    def find(self, keys: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """All values of any of the keys, in no order, possibly twice."""
        return self.find_each(keys)[0]

    def find_each(self, keys: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
        """All values, and for each the place of its key in `keys`. Those of one value are in the order of `keys`."""
        left = self._keys.searchsorted(keys, "left")
        counts = self._keys.searchsorted(keys, "right") - left
        places = np.repeat(np.arange(len(keys)), counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = self._values[np.repeat(left, counts) + within]
        if self._fresh:
            extra = [(i, v) for i, key in enumerate(keys.tolist()) for v in self._fresh.get(key, ())]
            if extra:
                found = np.concatenate((found, np.array([v for _, v in extra], np.uint32)))
                places = np.concatenate((places, np.array([i for i, _ in extra], np.intp)))
        return found, places

    def since(self, start: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Keys and values from the `start`-th on, in the order they were added; after a `sort` only `start` 0 is meant."""
        keys = np.concatenate((self._keys, np.array(self._new_keys, np.uint32)))
        values = np.concatenate((self._values, np.array(self._new_values, np.uint32)))
        return keys[start:], values[start:]

    def __len__(self) -> int:
        return len(self._keys) + len(self._new_keys)

    @property
    def nbytes(self) -> int:
        return 8 * len(self)


@dataclass(frozen=True, slots=True)
class Indexed:
    """One party as it goes in.

    Attributes:
        log_id, idx, pos: its notice, and its place in it.
        gate: issuer, TLP rank and audience of the notice, as `app.gate.may_read` takes them.
        status: 1 active, 2 withdrawn.
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


@dataclass(frozen=True, slots=True)
class Found:
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


@dataclass(frozen=True, slots=True)
class _Visible:
    """A mask of parties, and what it holds for: so many changes of the index, and a time from `since` to before `until`."""

    parties: NDArray[np.bool_]
    changes: int
    since: int
    until: int


class Index:
    """See the module."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._word_ids: dict[str, int] = {}
        self._word_keys = _Pairs()  # key -> word
        self._postings = _Pairs()  # word -> name
        self._joined = _Pairs()  # key of joined neighbours -> name
        self._identifiers = _Pairs()  # key -> party
        self._name_starts = array("I")
        self._name_words = array("I")
        self._name_party = _Column(np.uint32)
        self._name_weight = _Column(np.float32)
        self._name_forms = _Column(np.uint16)
        self._forms: list[frozenset[str]] = [frozenset()]
        self._form_ids: dict[frozenset[str], int] = {frozenset(): 0}
        self._party_person = _Column(np.bool_)
        self._party_alive = _Column(np.bool_)
        self._party_status = _Column(np.uint8)
        self._party_until = _Column(np.int64)
        self._party_gate = _Column(np.uint16)
        self._party_log = _Column(np.uint32)
        self._party_idx = _Column(np.int64)
        self._party_pos = _Column(np.uint16)
        self.gates: list[tuple[str, int, str | None]] = []
        self._gate_ids: dict[tuple[str, int, str | None], int] = {}
        self._new_words: list[Token] = []  # not keyed yet
        self._new_names: list[Name] = []
        self.work = Work()
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
        gate = self._gate_ids.get(party.gate)
        if gate is None:
            gate = self._gate_ids[party.gate] = len(self.gates)
            self.gates.append(party.gate)
        self._party_person.append(any(name.is_person for name in party.names))
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
        words = [self._word(t) for t in name.tokens]
        forms = self._form_ids.get(name.forms)
        if forms is None:
            forms = self._form_ids[name.forms] = len(self._forms)
            self._forms.append(name.forms)
        self._name_starts.append(len(self._name_words))
        self._name_words.extend(words)
        self._name_party.append(party)
        self._name_weight.append(name.weight)
        self._name_forms.append(forms)
        self._new_names.append(name)
        if live:
            self._key()
            self._fresh_names += 1
            if self._fresh_names > max(FRESH, number // 32):
                self.sort()
        elif len(self._new_names) >= KEYED_AT_ONCE:
            self._key()

    def _word(self, own: Token) -> int:
        number = self._word_ids.get(own.text)
        if number is None:
            number = self._word_ids[own.text] = len(self._words)
            self._words.append(own.text)
            self._new_words.append(own)
        return number

    def _key(self) -> None:
        """Make the keys of what was put in since the last time, all at once."""
        live = not self._loading
        keys, places = token_keys(self._new_words)
        first_word = np.uint32(len(self._words) - len(self._new_words))
        self._word_keys.add(keys, places + first_word, live=live)
        first = self._name_party.size - len(self._new_names)
        start = self._name_starts[first] if first < len(self._name_starts) else len(self._name_words)
        words = np.array(self._name_words[start:], np.uint32)
        names = np.repeat(
            np.arange(first, first + len(self._new_names), dtype=np.uint32),
            [len(name.tokens) for name in self._new_names],
        )
        self._postings.add(words, names, live=live)
        keys, places = joined_keys(self._new_names)
        self._joined.add(keys, places + np.uint32(first), live=live)
        self._new_words, self._new_names = [], []

    def remove(self, log_id: int, idx: int) -> None:
        """Take the parties of a notice out."""
        gone = (self._party_idx.array == idx) & (self._party_log.array == log_id)
        self._party_alive.array[gone] = False
        self._changes += 1

    def sort(self) -> None:
        """End of loading, or of many additions: sort all of it."""
        self._key()
        for pairs in (self._word_keys, self._postings, self._joined, self._identifiers):
            pairs.sort()
        self._fresh_names = 0
        self._loading = False
        self._visible_words.clear()

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
    ) -> list[Found]:
        """The parties that share words with one of the names, or an identifier; each with its best name, in no order."""
        best: dict[int, tuple[float, Agreement]] = {}
        words = self._words_behind(gates)
        for name in names:
            comparer = Comparer(name)
            candidates = self._candidates(name, visible, words)
            self.work.names += len(candidates)
            for number in candidates:
                agreement = comparer.compare(self._name(number))
                value = name_score(agreement)
                party = int(self._name_party.array[number])
                if party not in best or value > best[party][0]:
                    best[party] = (value, agreement)
        found = [Found(party, agreement, score=value) for party, (value, agreement) in best.items()]
        return found + self._by_identifier(identifiers, visible, best)

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
            tokens, names = self._postings.since(done)
            behind = np.array([*gates, False], np.bool_)[
                self._party_gate.array[self._name_party.array[names]]
            ]
            known[tokens[behind]] = True
        if len(self._visible_words) > 64:
            self._visible_words.clear()
        self._visible_words[opened] = (len(self._postings), known)
        return known

    def _name(self, number: int) -> Name:
        starts = self._name_starts
        end = starts[number + 1] if number + 1 < len(starts) else len(self._name_words)
        words = self._name_words[starts[number] : end]
        person = bool(self._party_person.array[self._name_party.array[number]])
        forms = self._forms[self._name_forms.array[number]]
        return Name("", tuple(token(self._words[w]) for w in words), forms, person)

    def _candidates(
        self, name: Name, visible: NDArray[np.bool_], words: NDArray[np.bool_] | None
    ) -> list[int]:
        """The names most worth comparing, by what the words they share say."""
        parties = self._name_party.array
        if len(self._total) < len(parties):
            room = len(parties) + len(parties) // 8
            self._total, self._once = np.zeros(room, np.float32), np.zeros(room, np.float32)
            self._marked = np.zeros(room, np.bool_)
        total, once, marked = self._total, self._once, self._marked
        for met, worth in self._meetings(name, words):
            once[met] = (
                worth  # in rising order: of a name that was met twice the last one, the greatest, stays
            )
            total[met] += once[met]  # a name that stands there twice is given the same sum twice
            marked[met] = True
        every = np.flatnonzero(marked[: len(parties)])
        numbers = every[visible[parties[every]]]
        sums = total[numbers]
        total[every] = 0
        marked[every] = False
        if not len(numbers):
            return []  # nothing shares a word, or all that do are hidden, withdrawn or expired
        matched = np.minimum(sums, name.weight)
        left = np.maximum(name.weight - matched, 0)
        other = np.maximum(self._name_weight.array[numbers] - matched, 0)
        conflict = np.minimum(left, other)
        estimate = matched / (
            matched
            + CONFLICT * conflict
            + QUERY_LEFT * (left - conflict)
            + OTHER_LEFT * (other - conflict)
            + 1e-6
        )
        # Ties fall by number, oldest first, so that the same index answers the same.
        if len(estimate) > 4 * CANDIDATES:
            best = np.flatnonzero(estimate >= np.partition(estimate, -CANDIDATES)[-CANDIDATES])
            numbers, estimate = numbers[best], estimate[best]
        order = np.argsort(-estimate, kind="stable")[:CANDIDATES]
        worth_it = estimate[order] >= PRUNED * estimate[order[0]]
        return [int(n) for n in numbers[order[worth_it]]]

    def _meetings(
        self, name: Name, words: NDArray[np.bool_] | None
    ) -> list[tuple[NDArray[np.uint32], NDArray[np.float32]]]:
        """For each word of the query, names with what meeting it there is worth."""
        found = []
        neighbours = [token(a.latin + b.latin) for a, b in pairwise(name.tokens)]
        keys, places = token_keys([*name.tokens, *neighbours])
        for place, own in enumerate(name.tokens):
            numbers, values = self._alike(
                own, keys[places == place], own.weight, words, person=name.is_person
            )
            joined = self._joined.find(joined_by(own))
            if len(joined):
                worth = np.full(len(joined), 0.95 * max(own.weight, 1.0), np.float32)
                numbers = np.concatenate((numbers, joined))
                values = np.concatenate((values, worth))
            found.append((numbers, values))
        for place, joined_word in enumerate(neighbours):
            # Names that write two neighbours of the query as one word.
            weight = name.tokens[place].weight + name.tokens[place + 1].weight
            own_keys = keys[places == place + len(name.tokens)]
            found.append(
                self._alike(joined_word, own_keys, weight, words, person=name.is_person, least=JOINED_LEAST)
            )
        return found

    def _alike(
        self,
        own: Token,
        keys: NDArray[np.uint32],
        weight: float,
        words: NDArray[np.bool_] | None,
        *,
        person: bool,
        least: float = 0.0,
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Names that have a word like this one, and what that is worth, the least first."""
        ids = np.unique(self._word_keys.find(keys), sorted=True)
        if words is not None:
            ids = ids[words[ids]]
        ids = ids[:MAX_MET]
        self.work.words += len(ids)
        alike = [
            (value, number)
            for number in ids.tolist()
            if (value := similarity(own, token(self._words[number]), person=person)[0]) > least
        ]
        alike.sort()
        del alike[:-MAX_WORDS]
        numbers, places = self._postings.find_each(np.array([n for _, n in alike], np.uint32))
        worth = np.array([sharpened(v) * weight for v, _ in alike], np.float32)
        return numbers, worth[places]

    # ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────

    def key_of(self, party: int) -> tuple[int, int, int]:
        """Log, index and position of a party."""
        return (
            int(self._party_log.array[party]),
            int(self._party_idx.array[party]),
            int(self._party_pos.array[party]),
        )

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
        return sum(p.nbytes for p in (self._word_keys, self._postings, self._joined, self._identifiers))
