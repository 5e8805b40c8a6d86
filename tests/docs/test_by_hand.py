"""docs/protocol.md is enough: its formulas, written anew from the page alone, agree with the vectors.

Nothing of this project is imported here. Whoever writes another node may begin from these lines.
"""

import hashlib
import hmac
import json
import re
import struct
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "protocol"
STATEMENT, LOG, REQUEST, CARD = (
    json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("statement", "log", "request", "card")
)


def b64u(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def un64u(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha256(*pieces: bytes) -> bytes:
    return hashlib.sha256(b"".join(pieces)).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01", left, right)


def test_section_1_the_seeds_make_the_keys() -> None:
    for kid, key in STATEMENT["keys"].items():
        seed = sha256(f"verbale vector: {kid}".encode())
        assert seed.hex() == key["seed_hex"]
        if key["alg"] == "Ed25519":
            raw = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
            assert b64u(raw) == key["public"]


def test_section_1_a_key_proves_its_possession() -> None:
    card = json.loads(CARD["card"])
    fields = ("verbale/key/v1", card["kid"], card["use"], card["kid"][:2], card["alg"])
    message = b"".join(field.encode() + b"\x00" for field in fields) + un64u(card["public"])
    assert message.hex() == CARD["possession_message_hex"]
    Ed25519PublicKey.from_public_bytes(un64u(card["public"])).verify(un64u(card["proof"]), message)


def test_section_2_a_leaf_is_made_of_its_texts() -> None:
    for said in STATEMENT["statements"].values():
        signing_input = f"{b64u(said['protected'].encode())}.{b64u(said['payload'].encode())}"
        assert said["leaf"] == f"{signing_input}.{said['signature']}"
        assert 200 <= len(said["leaf"]) <= 16_384
        payload = json.loads(said["payload"])
        assert json.dumps(payload, sort_keys=True, separators=(",", ":")) == said["payload"]
        assert b64u(sha256(b"\x00", said["leaf"].encode())) == said["leaf_hash"]
        header = json.loads(said["protected"])
        key, signature = STATEMENT["keys"][header["kid"]], un64u(said["signature"])
        if header["alg"] == "Ed25519":
            Ed25519PublicKey.from_public_bytes(un64u(key["public"])).verify(signature, signing_input.encode())
        else:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), un64u(key["public"]))
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            point.verify(encode_dss_signature(r, s), signing_input.encode(), ec.ECDSA(hashes.SHA256()))


def test_section_3_a_commitment_is_its_formula() -> None:
    for said in STATEMENT["statements"].values():
        statement_id = json.loads(said["payload"])["id"].encode()
        for name, part in said["parts"].items():
            lengths = (struct.pack(">H", len(statement_id)), struct.pack(">H", len(name)))
            message = b"verbale/commit/v1\x00" + lengths[0] + statement_id + lengths[1] + name.encode()
            made = hmac.digest(un64u(part["salt"]), message + part["text"].encode(), "sha256")
            assert b64u(made) == part["commitment"]


def lines_of(note: str) -> tuple[bytes, dict[str, bytes]]:
    text, _, block = note.rpartition("\n\n")
    found = re.findall(r"^— (\S+) (\S+)$", block, re.MULTILINE)
    return (text + "\n").encode(), {name: b64decode(line) for name, line in found}


def key_of(vkey: str) -> tuple[str, bytes, bytes]:
    name, key_id, material = vkey.split("+", 2)
    raw = b64decode(material)
    assert sha256(name.encode(), b"\n", raw)[:4].hex() == key_id
    return name, bytes.fromhex(key_id), raw[1:]


def test_section_7_the_checkpoint_is_signed_and_its_root_is_that_of_the_leaves() -> None:
    a, b, c, d = (sha256(b"\x00", leaf.encode()) for leaf in LOG["leaves"])
    root = node(node(a, b), node(c, d))
    text, lines = lines_of(LOG["served"])
    assert text == f"{LOG['origin']}\n4\n{b64encode(root).decode()}\n".encode()
    name, key_id, raw = key_of(LOG["keys"]["log"]["vkey"])
    assert (name, lines[name][:4]) == (LOG["origin"], key_id)
    Ed25519PublicKey.from_public_bytes(raw).verify(lines[name][4:], text)
    assert [un64u(h) for h in LOG["inclusion"]["2"]] == [d, node(a, b)]
    assert sha256(LOG["origin"].encode()).hex() == LOG["origin_hash"]
    bundle = b"".join(struct.pack(">H", len(leaf)) + leaf.encode() for leaf in LOG["leaves"])
    assert sha256(bundle).hex() == LOG["bundle"]["sha256_hex"]


def test_section_8_the_witness_signed_time_and_checkpoint() -> None:
    text, lines = lines_of(LOG["served"])
    name, key_id, raw = key_of(LOG["keys"]["witness"]["vkey"])
    line = lines[name]
    at = int.from_bytes(line[4:12], "big")
    assert (line[:4], len(line)) == (key_id, 4 + 8 + 64)
    message = f"cosignature/v1\ntime {at}\n".encode() + text
    assert message.decode() == LOG["add_checkpoint"]["cosigned_message"]
    Ed25519PublicKey.from_public_bytes(raw).verify(line[12:], message)
    first, second = (b64decode(hash_line) for hash_line in LOG["add_checkpoint"]["request"].split("\n")[1:3])
    leaf = sha256(b"\x00", LOG["leaves"][0].encode())
    assert b64encode(node(node(leaf, first), second)) == text.splitlines()[2]


def test_section_10_a_request_is_signed_over_its_base() -> None:
    digest = b64encode(sha256(REQUEST["body"].encode())).decode()
    parameters: dict[str, Any] = {
        "created": REQUEST["created"],
        "keyid": f'"{REQUEST["kid"]}"',
        "alg": '"ed25519"',
        "nonce": f'"{REQUEST["nonce"]}"',
        "tag": '"verbale"',
    }
    covered = '("@method" "@authority" "@target-uri" "content-digest")'
    signed = covered + "".join(f";{name}={value}" for name, value in parameters.items())
    base = (
        f'"@method": {REQUEST["method"]}\n"@authority": ee.verbale.example\n"@target-uri": {REQUEST["url"]}\n'
        f'"content-digest": sha-256=:{digest}:\n"@signature-params": {signed}'
    )
    assert base == REQUEST["signature_base"]
    headers = REQUEST["headers"]
    assert headers["content-digest"] == f"sha-256=:{digest}:"
    assert headers["signature-input"] == f"verbale={signed}"
    signature = b64decode(headers["signature"].removeprefix("verbale=:").removesuffix(":"))
    key = Ed25519PublicKey.from_public_bytes(un64u(REQUEST["key"]["public"]))
    key.verify(signature, base.encode())
