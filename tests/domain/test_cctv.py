"""C2SP/CCTV: every edge case of Ed25519's point inputs. Data: `tests/vectors/cctv`, 914 vectors with their licence.

Of all of them exactly one is an ordinary signature. Everything else turns on points of small or mixed order or on encodings
that are not canonical, on which implementations disagree; here all of it is refused, so that no two nodes can disagree.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from app.domain.errors import InvalidSignature, UnacceptableKey
from app.domain.keys import PublicKey

FILE = Path(__file__).parents[1] / "vectors" / "cctv" / "ed25519.txt"


class Vector(NamedTuple):
    key: bytes
    signature: bytes
    message: bytes
    flags: frozenset[str]


def vectors() -> list[Vector]:
    found = []
    for line in FILE.read_text("ascii").splitlines()[1:]:
        key, signature, message, flags = line.split("\t")
        found.append(
            Vector(
                bytes.fromhex(key),
                bytes.fromhex(signature),
                message.encode(),
                frozenset(flags.split(",")) - {""},
            )
        )
    return found


def verdict(vector: Vector) -> str:
    try:
        PublicKey.admit("Ed25519", vector.key).verify(vector.signature, vector.message)
    except UnacceptableKey:
        return "key not admitted"
    except InvalidSignature:
        return "signature refused"
    return "accepted"


def test_a_key_with_any_fault_is_not_admitted_and_no_signature_with_one_holds() -> None:
    seen = vectors()
    assert len(seen) == 914
    for vector in seen:
        faults_of_key = {flag for flag in vector.flags if flag.endswith("_A")}
        expected = (
            "key not admitted" if faults_of_key else "signature refused" if vector.flags else "accepted"
        )
        assert verdict(vector) == expected, sorted(vector.flags)
    assert [verdict(v) for v in seen].count("accepted") == 1
