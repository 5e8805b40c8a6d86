"""What an index is made of: numbers in columns, maps of many numbers to many, and texts; in memory, or in mapped files.

Guarantees the same contents wherever they lie. A `Mapped` file has no name, is made anew by every process, and is gone when
the process is: what it holds is a copy of tables of the database.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import tempfile
from array import array
from typing import IO, TYPE_CHECKING, Any, Final
from weakref import WeakSet

import numpy as np

from app.memory import give_back

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    Uints = NDArray[np.uint32]

BLOCK: Final = 1 << 18
"""Numbers that are copied or looked at together where all are: a megabyte."""
RELEASED: Final = 16
"""Blocks that are copied before what can be had again is given back."""
BUCKET: Final = 4
"""Keys that share a place of the table that says where they begin, on average."""

# ── where arrays lie ──────────────────────────────────────────────────────────────────────────────────────────────


class Store:
    """In memory."""

    segment = 1 << 17
    """Names that are loaded before they are sorted in with the rest."""
    fresh_share = 32
    """The part of all names that may be added to a loaded index before it is sorted again: one in so many."""

    def zeros(self, dtype: DTypeLike, size: int) -> NDArray[Any]:
        """Room for so many numbers."""
        return np.zeros(size, dtype)

    def release(self) -> None:
        """Give back what memory can be had again."""

    def settle(self) -> None:
        """The same, and what the allocator keeps of what was made and thrown away: a tenth of all, of a million parties."""
        self.release()
        give_back()


class Mapped(Store):
    """In files of a folder that have no name, mapped: what is read is in memory until `release`, and then the system's cache.

    Args:
        directory: of a file system with room; not one that is itself memory.
    """

    segment = 1 << 15
    fresh_share = 1 << 30

    def __init__(self, directory: Path) -> None:
        """Make no file yet."""
        self._directory = directory
        self._maps: WeakSet[mmap.mmap] = WeakSet()

    def zeros(self, dtype: DTypeLike, size: int) -> NDArray[Any]:
        """Room for so many numbers, on disk.

        Raises:
            OSError: the disk is full. Room is taken at once: a mapped page without room would end the process.
        """
        length = np.dtype(dtype).itemsize * size
        if not length:
            return np.zeros(0, dtype)
        with tempfile.TemporaryFile(dir=self._directory) as file:
            os.posix_fallocate(file.fileno(), 0, length)
            mapped = mmap.mmap(file.fileno(), length)
        self._maps.add(mapped)
        return np.frombuffer(mapped, dtype)

    def release(self) -> None:
        """Have no page of the files in this process's memory; the next reader takes them from the system's cache."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of what lies here lies in memory: see `restore`."""
        return Store, ()


# ── columns ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Column:
    """A numpy array that grows at its end."""

    def __init__(self, store: Store, dtype: DTypeLike, size: int = 1024) -> None:
        self._store = store
        self._data = store.zeros(dtype, size)
        self.size = 0

    def append(self, value: Any) -> None:  # noqa: ANN401 - a number
        """Put one number behind the last."""
        if self.size == len(self._data):
            self._grow(self.size + 1)
        self._data[self.size] = value
        self.size += 1

    def extend(self, values: Any) -> None:  # noqa: ANN401 - numbers
        """Put several numbers behind the last."""
        end = self.size + len(values)
        if end > len(self._data):
            self._grow(end)
        self._data[self.size : end] = values
        self.size = end

    def _grow(self, least: int) -> None:
        grown = self._store.zeros(self._data.dtype, max(least, len(self._data) * 3 // 2))
        for at in range(0, self.size, BLOCK):
            grown[at : min(at + BLOCK, self.size)] = self._data[at : min(at + BLOCK, self.size)]
        self._data = grown

    @property
    def array(self) -> NDArray[Any]:
        """All of them; not to be kept over the next `append`."""
        return self._data[: self.size]

    def __getstate__(self) -> dict[str, Any]:
        """Without the room to grow."""
        return {"_store": self._store, "_data": self.array, "size": self.size}


class Texts:
    """Texts by number, one behind the other, each with a line feed: none may have one of its own."""

    def __init__(self, store: Store) -> None:
        self._letters = Column(store, np.uint8)
        self._ends = Column(store, np.uint32)
        self._ends.append(0)

    def append(self, text: str) -> None:
        """Put a text behind the last."""
        self._letters.extend(np.frombuffer(f"{text}\n".encode(), np.uint8))
        self._ends.append(self._letters.size)

    def at(self, numbers: Uints) -> list[str]:
        """The texts of some numbers."""
        ends = self._ends.array
        _, within = spread(ends[numbers], ends[numbers + np.uint32(1)])
        return self._letters.array[within].tobytes().decode().split("\n")[:-1]

    def __len__(self) -> int:
        return self._ends.size - 1


# ── maps ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _inserted(store: Store, kept: Uints, at: NDArray[np.intp], new: Uints) -> Uints:
    """`numpy.insert` for places in rising order, block by block."""
    size = len(kept) + len(new)
    made = store.zeros(np.uint32, size)
    places = at + np.arange(len(at))
    taken = 0
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        first, last = places.searchsorted((start, end))
        old = np.ones(end - start, np.bool_)
        old[places[first:last] - start] = False
        count = end - start - (last - first)
        made[start:end][old] = kept[taken : taken + count]
        made[places[first:last]] = new[first:last]
        taken += count
        if start // BLOCK % RELEASED == RELEASED - 1:
            store.release()
    return made


class Pairs:
    """A map of many numbers to many numbers: sorted arrays, and a dictionary of what came after.

    Keys are checksums, so they are spread evenly: where those of a key are is looked up by its first bits.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = self._values = np.zeros(0, np.uint32)
        self._begins = np.zeros(3, np.uint32)
        self._shift = np.uint32(31)
        self._new_keys, self._new_values = array("I"), array("I")
        self._fresh: dict[int, list[int]] = {}

    def add(self, keys: Uints, values: Uints, *, live: bool) -> None:
        """Add pairs. They are found after the next `sort`, or with `live` at once."""
        self._new_keys.frombytes(keys.tobytes())
        self._new_values.frombytes(values.tobytes())
        if live:
            for key, value in zip(keys.tolist(), values.tolist(), strict=True):
                self._fresh.setdefault(key, []).append(value)

    def sort(self) -> None:
        """Sort what came since in with the rest, behind those of equal keys."""
        if len(self._new_keys):
            keys, values = (
                np.frombuffer(self._new_keys, np.uint32),
                np.frombuffer(self._new_values, np.uint32),
            )
            order = np.argsort(keys, kind="stable")
            self._merge(keys[order], values[order])
        self._new_keys, self._new_values = array("I"), array("I")
        self._fresh = {}

    def _merge(self, keys: Uints, values: Uints) -> None:
        at = self._keys.searchsorted(keys, "right")
        self._keys = _inserted(self._store, self._keys, at, keys)
        self._values = _inserted(self._store, self._values, at, values)
        bits = max((len(self._keys) // BUCKET).bit_length(), 1)
        self._shift = np.uint32(32 - bits)
        self._begins = self._store.zeros(np.uint32, 2**bits + 1)
        for start in range(0, 2**bits, BLOCK):
            first = np.arange(start, min(start + BLOCK, 2**bits), dtype=np.uint32) << self._shift
            self._begins[start : start + len(first)] = self._keys.searchsorted(first)
        self._begins[-1] = len(self._keys)

    def find(self, keys: Uints) -> Uints:
        """All values of any of the keys, in no order, possibly twice."""
        return self.find_each(keys)[0]

    def find_each(self, keys: Uints) -> tuple[Uints, NDArray[np.intp]]:
        """All values, and for each the place of its key in `keys`. Those of one value are in the order of `keys`."""
        places, within = self._within(keys)
        found = self._values[within]
        if self._fresh:
            extra = [(i, v) for i, key in enumerate(keys.tolist()) for v in self._fresh.get(key, ())]
            if extra:
                found = np.concatenate((found, np.array([v for _, v in extra], np.uint32)))
                places = np.concatenate((places, np.array([i for i, _ in extra], np.intp)))
        return found, places

    def _within(self, keys: Uints) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """For all values of keys that were sorted in: the place of the key, and that of the value."""
        bucket = keys >> self._shift
        places, within = spread(self._begins[bucket], self._begins[bucket + np.uint32(1)])
        same = np.flatnonzero(self._keys[within] == keys[places])
        return places[same], within[same]

    def blocks(self, start: int = 0) -> Iterator[tuple[Uints, Uints]]:
        """Keys and values from the `start`-th on, in the order they were added; after a `sort` only `start` 0 is meant."""
        held = len(self._values)
        for at in range(start, held, BLOCK):
            yield self._keys_from(at, min(at + BLOCK, held)), self._values[at : at + BLOCK]
        new = max(start - held, 0)
        keys, values = np.array(self._new_keys, np.uint32), np.array(self._new_values, np.uint32)
        yield keys[new:], values[new:]

    def _keys_from(self, start: int, end: int) -> Uints:
        return self._keys[start:end]

    def __len__(self) -> int:
        return len(self._values) + len(self._new_values)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self._keys.nbytes + self._values.nbytes + self._begins.nbytes + 8 * len(self._new_keys)


class Numbered(Pairs):
    """The same of keys that are consecutive numbers: where the values of each begin is kept for each."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._begins = np.zeros(1, np.uint32)  # of each number, and where the last ones end

    def _merge(self, keys: Uints, values: Uints) -> None:
        count = max(int(keys[-1]) + 1, len(self._begins) - 1)
        begins = np.full(count + 1, len(self._values), np.uint32)
        begins[: len(self._begins)] = self._begins
        at = begins[keys + np.uint32(1)].astype(np.intp)
        self._values = _inserted(self._store, self._values, at, values)
        begins[1:] += np.cumsum(np.bincount(keys, minlength=count)).astype(np.uint32)
        self._begins = self._store.zeros(np.uint32, len(begins))
        self._begins[:] = begins

    def _within(self, keys: Uints) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        known = np.flatnonzero(keys < len(self._begins) - 1)
        own = keys[known]
        places, within = spread(self._begins[own], self._begins[own + np.uint32(1)])
        return known[places], within

    def _keys_from(self, start: int, end: int) -> Uints:
        numbers = self._begins.searchsorted(np.arange(start, end, dtype=np.uint32), "right") - 1
        return numbers.astype(np.uint32)


def spread(begins: Uints, ends: Uints) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All places from a beginning to an end, for several: the number of each one's beginning, and itself."""
    counts = (ends - begins).astype(np.intp)
    ahead = (begins - (np.cumsum(counts) - counts)).astype(np.intp, copy=False)
    which = np.repeat(np.arange(len(counts)), counts)
    return which, ahead[which] + np.arange(len(which))


# ── copies ────────────────────────────────────────────────────────────────────────────────────────────────────────

_HEAD: Final = struct.Struct("<QQ")
_ALIGNED: Final = 64


def dump(value: Any, file: IO[bytes]) -> None:  # noqa: ANN401 - what pickle takes
    """Write a copy for `restore`: what is no array, pickled, and the arrays as they are."""
    arrays: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    sizes = pickle.dumps([len(one.raw()) for one in arrays])
    file.write(_HEAD.pack(len(sizes), len(rest)))
    file.write(sizes)
    file.write(rest)
    at = _HEAD.size + len(sizes) + len(rest)
    for one in arrays:
        file.write(bytes(-at % _ALIGNED))
        file.write(one.raw())
        at += -at % _ALIGNED + len(one.raw())


def restore(file: IO[bytes]) -> Any:  # noqa: ANN401 - what was dumped
    """What `dump` wrote. Arrays are mapped: processes share them, and what one changes is its own."""
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    size, rest = _HEAD.unpack(mapped[: _HEAD.size])
    at = _HEAD.size + size
    sizes = pickle.loads(mapped[_HEAD.size : at])  # noqa: S301 - from our own process
    pickled, at = mapped[at : at + rest], at + rest
    arrays = []
    for length in sizes:
        at += -at % _ALIGNED
        arrays.append(mapped[at : at + length])
        at += length
    return pickle.loads(pickled, buffers=arrays)  # noqa: S301 - from our own process
