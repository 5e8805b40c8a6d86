"""A log as anybody may read it, from the C2SP specifications of tiles, checkpoints, proofs and witnesses; nothing of ours.

It only takes apart what is served. Whether that is true, the verifiers say.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Self

import httpx


@dataclass(frozen=True)
class Head:
    """A checkpoint: its three lines, the text that is signed, and its signature lines as (name, key id, signature)."""

    origin: str
    size: int
    root: bytes
    text: bytes
    signatures: tuple[tuple[str, bytes, bytes], ...]

    @classmethod
    def read(cls, raw: bytes) -> Head:
        text, _, block = raw.partition(b"\n\n")
        origin, size, root = text.decode().split("\n")
        signatures = []
        for line in block.decode().splitlines():
            dash, name, encoded = line.split(" ")
            assert dash == "—"
            value = b64decode(encoded, validate=True)
            signatures.append((name, value[:4], value[4:]))
        return cls(origin, int(size), b64decode(root, validate=True), text + b"\n", tuple(signatures))

    def signature_of(self, name: str) -> bytes:
        return next(value for signer, _, value in self.signatures if signer == name)


@dataclass(frozen=True)
class Proof:
    """A tlog-proof: index, hashes from the leaf's sibling up, checkpoint."""

    index: int
    path: list[bytes]
    head: Head

    @classmethod
    def read(cls, raw: bytes) -> Proof:
        top, _, note = raw.partition(b"\n\n")
        version, index, *hashes = top.decode().split("\n")
        assert version == "c2sp.org/tlog-proof@v1"
        return cls(
            int(index.removeprefix("index ")), [b64decode(h, validate=True) for h in hashes], Head.read(note)
        )


class ServedLog:
    """One log, own or mirrored, at its address."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(trust_env=False, timeout=60)
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, a: type[BaseException] | None, b: BaseException | None, c: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str) -> bytes:
        response = self._client.get(f"{self._url}/{path}")
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        return response.content

    def head(self, size: int | None = None) -> Head:
        return Head.read(self.get("checkpoint" if size is None else f"checkpoint/{size}"))

    def leaves(self, size: int) -> list[bytes]:
        """The first `size` entries, from the bundles."""
        found: list[bytes] = []
        for number in range((size + 255) // 256):
            width = min(256, size - number * 256)
            rest = self.get(f"tile/entries/{number:03}" + ("" if width == 256 else f".p/{width}"))
            for _ in range(width):
                length = int.from_bytes(rest[:2], "big")
                found.append(rest[2 : 2 + length])
                rest = rest[2 + length :]
            assert not rest
        return found

    def proof(self, index: int) -> Proof:
        return Proof.read(self.get(f"proof/{index}"))


def read_submission(raw: bytes) -> tuple[int, list[bytes], Head]:
    """What a log sends to a witness: the old size, a consistency proof from there, the new head."""
    top, _, note = raw.partition(b"\n\n")
    first, *path = top.decode().split("\n")
    return int(first.removeprefix("old ")), [b64decode(one, validate=True) for one in path], Head.read(note)


def vkey(name: str, raw: bytes, kind: int = 1) -> str:
    """A verifier key of C2SP signed-note: a log's (1) or a cosigner's (4)."""
    identity = bytes([kind]) + raw
    key_id = sha256(name.encode() + b"\n" + identity).digest()[:4]
    return f"{name}+{key_id.hex()}+{b64encode(identity).decode()}"


def raw(text: str) -> bytes:
    """Read base64url without padding."""
    return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
