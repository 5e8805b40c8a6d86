"""Our keys in python-tuf's clothes.

A TUF key carries two signed members of ours, `x-verbale-kid` and `x-verbale-proof`: whose key it is, and that its owner held
it. A stock client ignores them; ours admits no key without. ECDSA signatures are DER in TUF and r ‖ s everywhere else here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import Key, SecretsHandler, Signature, SSlibKey
from securesystemslib.signer import Signer as TufSigner

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import Malformed, UnacceptableKey
from app.domain.keys import PublicKey, Signer
from app.keyfiles import KeyCard
from app.roster.documents import admit

KID: Final = "x-verbale-kid"
PROOF: Final = "x-verbale-proof"


def _plain(key: PublicKey) -> SSlibKey:
    """The TUF key with its standard key id, without our members."""
    if key.alg == "Ed25519":
        return SSlibKey.from_crypto(ed25519.Ed25519PublicKey.from_public_bytes(key.raw))
    return SSlibKey.from_crypto(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.raw))


def keyid_of(key: PublicKey) -> str:
    """The TUF key id: SHA-256 over the key's canonical JSON form, in hex."""
    return str(_plain(key).keyid)


def to_tuf(card: KeyCard) -> SSlibKey:
    """The TUF form of a card's key."""
    key = _plain(card.key)
    key.unrecognized_fields[KID] = card.kid
    key.unrecognized_fields[PROOF] = b64u_encode(card.proof)
    return key


def from_tuf(key: Key, use: str) -> KeyCard:
    """Read a TUF key, admit it, and check its key id, owner and proof of possession.

    Raises:
        UnacceptableKey: any of that fails.
    """
    kid, proof = key.unrecognized_fields.get(KID), key.unrecognized_fields.get(PROOF)
    if not isinstance(kid, str) or not isinstance(proof, str) or set(key.unrecognized_fields) != {KID, PROOF}:
        raise UnacceptableKey(f"The TUF key {key.keyid[:16]} does not say whose it is ({KID}, {PROOF}).")
    try:
        card = KeyCard(kid, use, _public(key), b64u_decode(proof))
        card.check()
    except (Malformed, UnacceptableKey) as error:
        raise UnacceptableKey(f"The TUF key {kid!r}: {error}") from error
    # The key id must be the standard one, and the key's text the one we would write: one key, one spelling.
    if to_tuf(card) != key:
        raise UnacceptableKey(f"The TUF key {kid!r} is not in its canonical form.")
    return card


def _public(key: Key) -> PublicKey:
    text = key.keyval.get("public")
    if not isinstance(text, str) or set(key.keyval) != {"public"}:
        raise UnacceptableKey("it has no public value.")
    try:
        if (key.keytype, key.scheme) == ("ed25519", "ed25519"):
            return admit("Ed25519", b64u_encode(bytes.fromhex(text)))
        if (key.keytype, key.scheme) == ("ecdsa", "ecdsa-sha2-nistp256"):
            loaded = load_pem_public_key(text.encode("ascii"))
            if isinstance(loaded, ec.EllipticCurvePublicKey) and isinstance(loaded.curve, ec.SECP256R1):
                numbers = loaded.public_numbers()
                raw = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
                return admit("ES256", b64u_encode(raw))
    except ValueError as error:
        raise UnacceptableKey(f"its public value cannot be read: {error}.") from error
    raise UnacceptableKey(
        f"{key.keytype}/{key.scheme} is not a kind of key this federation uses (Ed25519, P-256)."
    )


@dataclass(frozen=True)
class SignerForTuf(TufSigner):
    """One of our signers, as python-tuf wants to call it."""

    signer: Signer

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> TufSigner:
        """Not offered: keys are opened by `app.keyfiles`, which checks the file first."""
        raise NotImplementedError  # securesystemslib's interface asks for it; nothing here opens a key by URI

    @property
    def public_key(self) -> SSlibKey:
        """The public half."""
        return _plain(self.signer.public)

    def sign(self, payload: bytes) -> Signature:
        """Sign TUF's canonical bytes."""
        raw = self.signer.sign(payload)
        if self.signer.public.alg == "ES256":
            raw = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        return Signature(keyid_of(self.signer.public), raw.hex())
