"""One site under two names: whether two addresses, as people write them, are one place.

Pure, and strict: a house or box number has to be the same, and nearly all other words of the shorter one. Two companies in
one street are not one site, and a city alone is no address.
"""

from __future__ import annotations

from typing import Final

from app.domain.names import tokens

_SHARED: Final = 0.8
"""Part of the shorter address's words that has to stand in the longer one."""
_LEAST_WORDS: Final = 3
_FILLERS: Final = frozenset(
    "no nr street st str road rd avenue ave building bldg floor flat office room suite unit p o box po the of and city".split()
)


def same_site(one: str, other: str) -> bool:
    """Whether two addresses are one place: `Harbour Road 17, Port Zeta` and `17 Harbour Rd., Port Zeta, 10110`."""
    ours, theirs = _words(one), _words(other)
    short, long = sorted((ours, theirs), key=len)
    shared = short & long
    numbers = {word for word in shared if any(c.isdigit() for c in word)}
    return (
        len(shared) >= _LEAST_WORDS
        and bool(numbers)
        and len(shared) >= _SHARED * len(short)
        and len(shared) > len(numbers)
    )


def _words(address: str) -> frozenset[str]:
    return frozenset(word for word in tokens(address) if word not in _FILLERS)
