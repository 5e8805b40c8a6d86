"""Write tests/vectors/tlog/*.json: the log's exact bytes, for whoever writes a node of their own from docs/protocol.md.

Run from the top of the repository: `python -m tests.vectors.generate_tlog`. Everything is deterministic: keys come from
fixed seeds, Ed25519 signatures are deterministic, times are constants. A test runs `vectors()` and compares.

In the files, `hex` is bytes in hexadecimal, `note` and other text stand as text, and `refused` names inputs that a
strict implementation must not accept, by what is wrong with them.
"""

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.domain.keys import Ed25519Signer
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, sign_checkpoint
from app.tlog.cosignature import CosignerKey, cosign, cosigned_message, with_cosignatures
from app.tlog.merkle import Frontier, NodeReader, consistency_proof, inclusion_proof, leaf_hash, tree_root
from app.tlog.note import VerifierKey
from app.tlog.proof import TlogProof
from app.tlog.tiles import BundlePath, TilePath, encode_bundle, extend_tiles, nodes_from_tiles, tiles_of
from app.tlog.witness import Submission, encode_cosignatures, encode_size, origin_hash

FOLDER = Path(__file__).parent / "tlog"
ORIGIN = "ee.verbale.example/log/1"
WITNESS = "nl.verbale.example/witness"
AT = 1_790_000_000  # 2026-09-21T13:33:20Z
SIZE = 700
ENTRIES = [b"entry %d" % i for i in range(SIZE)]


def seed(label: str) -> bytes:
    return sha256(f"verbale vector: {label}".encode()).digest()


def signer(label: str) -> Ed25519Signer:
    return Ed25519Signer(Ed25519PrivateKey.from_private_bytes(seed(label)))


LOG = signer(ORIGIN)
COSIGNER = signer(WITNESS)


def tree() -> tuple[NodeReader, dict[tuple[int, int], bytes]]:
    store = {
        (tile.level, tile.index): tile.data
        for tile in extend_tiles(0, {}, [leaf_hash(one) for one in ENTRIES])
    }
    return nodes_from_tiles(lambda level, index: store[level, index]), store


def head(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, tree_root(tree()[0], size))


def signed(size: int) -> notes.Note:
    checkpoint = head(size)
    return with_cosignatures(sign_checkpoint(checkpoint, LOG), [cosign(checkpoint, WITNESS, COSIGNER, AT)])


def text(raw: bytes) -> str:
    return raw.decode("utf-8")


def keys() -> dict[str, Any]:
    return {
        "log": {"seed": seed(ORIGIN).hex(), "vkey": VerifierKey(ORIGIN, LOG.public).encode()},
        "witness": {"seed": seed(WITNESS).hex(), "vkey": CosignerKey(WITNESS, COSIGNER.public).encode()},
    }


def merkle() -> dict[str, Any]:
    node, _ = tree()
    sizes = [*range(18), 255, 256, 257, 511, 512, 513, SIZE]
    return {
        "entries": 'the ASCII bytes of "entry 0", "entry 1", ...',
        "leaf_hashes": [leaf_hash(one).hex() for one in ENTRIES[:4]],
        "roots": {str(size): tree_root(node, size).hex() for size in sizes},
        "frontiers": {
            str(size): Frontier.read(node, size).to_bytes().hex() for size in (0, 1, 6, 7, 8, 256, 257, SIZE)
        },
        "inclusion": [
            {"index": i, "size": n, "proof": [one.hex() for one in inclusion_proof(node, i, n)]}
            for i, n in (
                (0, 1),
                (0, 2),
                (5, 7),
                (6, 7),
                (3, 8),
                (256, 257),
                (255, 512),
                (699, SIZE),
                (300, SIZE),
            )
        ],
        "consistency": [
            {"old": m, "new": n, "proof": [one.hex() for one in consistency_proof(node, m, n)]}
            for m, n in (
                (0, 5),
                (5, 5),
                (1, 2),
                (3, 7),
                (4, 7),
                (6, 7),
                (6, 8),
                (256, 257),
                (257, SIZE),
                (512, SIZE),
            )
        ],
    }


def checkpoints() -> dict[str, Any]:
    good = text(signed(SIZE).encode())
    body, lines = good.split("\n\n")
    size, root = body.split("\n")[1:]
    log_line, witness_line = lines.splitlines(keepends=True)
    refused_texts = {
        "an extension line": f"{body}\nextension\n",
        "a fourth, empty line": f"{body}\n\n",
        "no root": f"{ORIGIN}\n{size}\n",
        "leading zero in the size": f"{ORIGIN}\n0{size}\n{root}\n",
        "plus sign before the size": f"{ORIGIN}\n+{size}\n{root}\n",
        "size of 2^63": f"{ORIGIN}\n{2**63}\n{root}\n",
        "spare bits in the root": f"{ORIGIN}\n{size}\n{spare_bits(root)}\n",
        "root without padding": f"{ORIGIN}\n{size}\n{root.rstrip('=')}\n",
        "root of 33 bytes": f"{ORIGIN}\n{size}\n{'A' * 44}\n",
        "another log's origin": f"nl.verbale.example/log/1\n{size}\n{root}\n",
    }
    return {
        "keys": keys(),
        "empty": text(sign_checkpoint(head(0), LOG).encode()),
        "signed": text(sign_checkpoint(head(SIZE), LOG).encode()),
        "cosigned": good,
        "cosigned_message": text(cosigned_message(head(SIZE).body(), AT)),
        "cosigned_at": AT,
        "refused": {
            # The log's signature holds over these: only the named fault is wrong with them.
            **{name: signed_anyway(one) for name, one in refused_texts.items()},
            "no final newline": good[:-1],
            "a blank line at the end": good + "\n",
            "CRLF": good.replace("\n", "\r\n"),
            "no blank line": good.replace("\n\n", "\n"),
            "hyphen for the dash": good.replace("\u2014", "-"),
            "no signature by the log": f"{body}\n\n{witness_line}",
            "another size than was signed": good.replace(f"\n{size}\n", "\n701\n"),
            "a bad line of the log beside a good one": good + bend(log_line),
            "a bad line of the witness": f"{body}\n\n{log_line}{bend(witness_line)}",
        },
    }


def signed_anyway(body: str) -> str:
    """A note over a text that is no checkpoint of this log, with the log's genuine signature."""
    raw = body.encode()
    return text(notes.Note(raw, (notes.sign(raw, ORIGIN, LOG),)).encode())


def spare_bits(encoded: str) -> str:
    """Another spelling of the same 32 bytes: the last character before the padding has two bits nobody reads."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return f"{encoded[:-2]}{alphabet[alphabet.index(encoded[-2]) + 1]}="


def bend(line: str) -> str:
    """The same line with one bit of the signature flipped."""
    dash, name, encoded = line.rstrip("\n").split(" ")
    data = bytearray(notes.b64_decode(encoded))
    data[-1] ^= 1
    return f"{dash} {name} {b64encode(bytes(data)).decode()}\n"


def tiles() -> dict[str, Any]:
    _, store = tree()
    paths = [(0, 0, 256), (0, 1234067, 256), (1, 1000, 17), (7, 5, 1)]
    bundles = [(0, 3), (1234067, 255)]
    return {
        "paths": [
            {"level": level, "index": index, "width": width, "path": str(TilePath(level, index, width))}
            for level, index, width in paths
        ],
        "bundle_paths": [
            {"index": index, "width": width, "path": str(BundlePath(index, width))}
            for index, width in bundles
        ],
        "refused_paths": [
            "tile/0/0",
            "tile/00/000",
            "tile/64/000",
            "tile/0/x000/001",
            "tile/0/001/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000/",
            "/tile/0/000",
            "tile/8/0/000",
        ],
        "sizes": {str(size): [str(tile) for tile in tiles_of(size)] for size in (0, 1, 255, 256, 257, SIZE)},
        "tiles_sha256": {
            str(tile): sha256(store[tile.level, tile.index]).hexdigest() for tile in tiles_of(SIZE)
        },
        "bundle": {"entries": [text(one) for one in ENTRIES[:3]], "hex": encode_bundle(ENTRIES[:3]).hex()},
        "refused_bundles": {
            "width 1, entry cut short": "000261",
            "width 1, half a length left over": "00016100",
            "width 2, one entry": "000161",
            "width 1, two entries": "000161000162",
        },
    }


def proofs() -> dict[str, Any]:
    node, _ = tree()
    note = signed(SIZE).encode()
    path = inclusion_proof(node, 300, SIZE)
    plain = text(TlogProof(300, path, note).encode())
    return {
        "keys": keys(),
        "entry": text(ENTRIES[300]),
        "proof": plain,
        "with_extra": text(TlogProof(300, path, note, b"not authenticated").encode()),
        "refused": {
            "another index": plain.replace("index 300\n", "index 301\n"),
            "leading zero in the index": plain.replace("index 300\n", "index 0300\n"),
            "empty extra": plain.replace("index 300\n", "extra \nindex 300\n"),
            "another version": plain.replace("@v1\n", "@v2\n"),
        },
    }


def witness() -> dict[str, Any]:
    node, _ = tree()
    note = sign_checkpoint(head(SIZE), LOG).encode()
    return {
        "keys": keys(),
        "origin_hash": origin_hash(ORIGIN),
        "cosigned_before": text(signed(257).encode()),
        "request": text(Submission(257, consistency_proof(node, 257, SIZE), note).encode()),
        "answer_200": text(encode_cosignatures([cosign(head(SIZE), WITNESS, COSIGNER, AT)])),
        "first_request": text(Submission(0, (), note).encode()),
        "answer_409": text(encode_size(257)),
    }


def vectors() -> dict[str, str]:
    """File name → content."""
    parts = {
        "merkle.json": merkle(),
        "checkpoint.json": checkpoints(),
        "tiles.json": tiles(),
        "proof.json": proofs(),
        "witness.json": witness(),
    }
    return {name: json.dumps(part, indent=1, ensure_ascii=False) + "\n" for name, part in parts.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
