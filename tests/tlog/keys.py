"""Keys with fixed seeds, so that every signature in a test is the same every day."""

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.domain.keys import Ed25519Signer
from app.tlog.cosignature import CosignerKey
from app.tlog.note import VerifierKey

ORIGIN = "ee.verbale.example/log/1"


def signer(label: str) -> Ed25519Signer:
    return Ed25519Signer(Ed25519PrivateKey.from_private_bytes(sha256(label.encode()).digest()))


LOG = signer("verbale test: the log of EE")
LOG_KEY = VerifierKey(ORIGIN, LOG.public)
OTHER = signer("verbale test: somebody else")
WITNESS_NAMES = [f"{state}.verbale.example/witness" for state in ("jp", "nl", "us")]
WITNESSES = [signer(f"verbale test: {name}") for name in WITNESS_NAMES]
WITNESS_KEYS = [CosignerKey(name, one.public) for name, one in zip(WITNESS_NAMES, WITNESSES, strict=True)]
