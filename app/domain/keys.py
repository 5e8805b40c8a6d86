"""Public keys, admitted once; signatures, checked strictly.

`PublicKey.admit` is the only door for a key that comes from outside. It refuses what `cryptography` would take: Ed25519
points of small or mixed order, under which one fixed signature can verify for any message, and encodings that are not
canonical. `PublicKey.verify` refuses a small-order R on top of RFC 8032's checks, so that every node agrees on every
signature. Signatures are never batch-verified: cofactored and cofactorless verifiers disagree on mixed-order points.

Keys that receive sealed bodies (`app.domain.sealing`) are admitted by `PublicKey.admit_encryption`; they sign nothing.

Sources: RFC 8032 (Ed25519), RFC 9864 and RFC 7518 (the JOSE names Ed25519 and ES256), C2SP/CCTV ed25519vectors;
draft-connolly-cfrg-xwing-kem (X-Wing), RFC 7748 (X25519), FIPS 203 section 7.2 (ML-KEM).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, Protocol

from cryptography.exceptions import InvalidSignature as CryptographyInvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import InvalidSignature, UnacceptableKey

if TYPE_CHECKING:
    from collections.abc import Callable

Algorithm = Literal["Ed25519", "ES256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("Ed25519", "ES256")
EncryptionAlgorithm = Literal["X-Wing", "X25519"]
ENCRYPTION_ALGORITHMS: Final[tuple[EncryptionAlgorithm, ...]] = ("X-Wing", "X25519")

# ── Ed25519 group arithmetic, for admission only ──────────────────────────────────────────────────────────────────
# Runs once per key, never per signature, on public values: speed and constant time do not matter here.

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_SQRT_M1: Final = pow(2, (_P - 1) // 4, _P)
_Point = tuple[int, int, int, int]  # extended homogeneous coordinates, RFC 8032 section 5.1.4
_IDENTITY: Final[_Point] = (0, 1, 1, 0)


def _decompress(raw: bytes) -> _Point | None:
    """RFC 8032 section 5.1.3, with the canonical check made explicit. None: not a canonical point."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    numerator, denominator = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = numerator * pow(denominator, 3, _P) * pow(numerator * pow(denominator, 7, _P), (_P - 5) // 8, _P) % _P
    if (denominator * x * x - numerator) % _P:
        x = x * _SQRT_M1 % _P
    if (denominator * x * x - numerator) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _add(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    result = _IDENTITY
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point, scalar = _add(point, point), scalar >> 1
    return result


def _is_identity(point: _Point) -> bool:
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0


def _small_order_encodings() -> frozenset[bytes]:
    """The canonical encodings of the eight points whose order divides 8."""
    for y in range(
        2, 100
    ):  # some small y is a point of full order 8·L; L times it generates the torsion subgroup
        point = _decompress(y.to_bytes(32, "little"))
        if point is None:
            continue
        torsion = _times(_L, point)
        if not _is_identity(_times(4, torsion)):
            multiples = [_times(k, torsion) for k in range(8)]
            return frozenset(_compress(m) for m in multiples)
    raise AssertionError("unreachable: a point of order 8L has a small y")


def _compress(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_SMALL_ORDER: Final = _small_order_encodings()


def _admit_ed25519(raw: bytes) -> None:
    if len(raw) != 32:  # noqa: PLR2004 - the length RFC 8032 gives
        raise UnacceptableKey(f"An Ed25519 public key has 32 bytes; this one has {len(raw)}.")
    point = _decompress(raw)
    if point is None:
        raise UnacceptableKey(
            "This Ed25519 public key is not a canonical point of the curve. Generate a new key."
        )
    if raw in _SMALL_ORDER or not _is_identity(_times(_L, point)):
        raise UnacceptableKey(
            "This Ed25519 public key is not of prime order: signatures under it would prove nothing. Generate a new key."
        )


def _admit_es256(raw: bytes) -> None:
    if len(raw) != 65 or raw[0] != 4:  # noqa: PLR2004 - SEC 1 uncompressed point on P-256
        raise UnacceptableKey(
            "A P-256 public key is an uncompressed SEC 1 point of 65 bytes that begins with 0x04."
        )
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    except ValueError as error:
        raise UnacceptableKey(
            "This P-256 public key is not a point of the curve. Generate a new key."
        ) from error


# ── keys that receive: X25519, and X-Wing, which is ML-KEM-768 beside X25519 ──────────────────────────────────────

X25519_BYTES: Final = 32
MLKEM_BYTES: Final = 1184
_A24: Final = 121665


def _has_small_order(raw: bytes) -> bool:
    """Whether eight times an X25519 point is the neutral element: the secret agreed with it would be no secret.

    The Montgomery ladder of RFC 7748 section 5 for the scalar 8, which meets the curve and its twist alike.
    """
    x1 = int.from_bytes(raw, "little") & (2**255 - 1)
    x2, z2, x3, z3 = 1, 0, x1, 1
    for bit in (1, 0, 0, 0):
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = pow(da + cb, 2, _P), x1 * pow(da - cb, 2, _P) % _P
        x2, z2 = aa * bb % _P, e * (aa + _A24 * e) % _P
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return z2 % _P == 0


def _admit_x25519(raw: bytes) -> None:
    if len(raw) != X25519_BYTES:
        raise UnacceptableKey(f"An X25519 public key has 32 bytes; this one has {len(raw)}.")
    if int.from_bytes(raw, "little") >= _P or _has_small_order(raw):
        raise UnacceptableKey(
            "This X25519 public key is not canonical or of small order: whatever is sealed to it is open to anyone. "
            "Generate a new key."
        )


def _admit_xwing(raw: bytes) -> None:
    if len(raw) != MLKEM_BYTES + X25519_BYTES:
        raise UnacceptableKey(f"An X-Wing public key has 1216 bytes; this one has {len(raw)}.")
    try:
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:MLKEM_BYTES])
    except ValueError as error:
        raise UnacceptableKey(
            "The ML-KEM-768 half of this X-Wing key is not well formed. Generate a new key."
        ) from error
    _admit_x25519(raw[MLKEM_BYTES:])


@lru_cache(maxsize=4096)
def _verifier(alg: Algorithm, raw: bytes) -> Callable[[bytes, bytes], None]:
    """One loaded key object per public key: loading costs a tenth of a verification."""
    if alg == "Ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(raw).verify
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)

    def verify(signature: bytes, message: bytes) -> None:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))

    return verify


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key with its algorithm.

    Attributes:
        alg: `Ed25519` or `ES256`; `X-Wing` or `X25519` for a key that receives sealed bodies.
        raw: 32 bytes (Ed25519, X25519), the 65-byte uncompressed point (P-256), or 1,216 bytes (X-Wing).
    """

    alg: Algorithm | EncryptionAlgorithm
    raw: bytes = field(repr=False)

    @classmethod
    def admit(cls, alg: str, raw: bytes) -> PublicKey:
        """Make a key from outside bytes; the checks that this class's methods rely on happen here and only here.

        Raises:
            UnacceptableKey: unknown algorithm, wrong length, not a canonical point, not of prime order.
        """
        if alg == "Ed25519":
            _admit_ed25519(raw)
            return cls("Ed25519", raw)
        if alg == "ES256":
            _admit_es256(raw)
            return cls("ES256", raw)
        raise UnacceptableKey(f"Unknown key algorithm {alg!r}. Use one of: {', '.join(ALGORITHMS)}.")

    @classmethod
    def admit_encryption(cls, alg: str, raw: bytes) -> PublicKey:
        """Make a key that receives sealed bodies from outside bytes.

        Raises:
            UnacceptableKey: unknown algorithm, wrong length, not well formed, of small order.
        """
        if alg == "X-Wing":
            _admit_xwing(raw)
            return cls("X-Wing", raw)
        if alg == "X25519":
            _admit_x25519(raw)
            return cls("X25519", raw)
        raise UnacceptableKey(
            f"Unknown algorithm {alg!r} of an encryption key. Use one of: {', '.join(ENCRYPTION_ALGORITHMS)}."
        )

    @classmethod
    def from_text(cls, alg: str, text: str, *, encryption: bool = False) -> PublicKey:
        """Like `admit`, or `admit_encryption`, from base64url. Raises UnacceptableKey or NonCanonicalEncoding."""
        raw = b64u_decode(text)
        return cls.admit_encryption(alg, raw) if encryption else cls.admit(alg, raw)

    def text(self) -> str:
        """The raw key as base64url."""
        return b64u_encode(self.raw)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a 64-byte signature (RFC 8032, or r ‖ s per RFC 7518 section 3.4).

        Raises:
            InvalidSignature: wrong length, a small-order R, or it does not hold.
        """
        if self.alg in ENCRYPTION_ALGORITHMS:
            raise InvalidSignature(f"An {self.alg} key receives sealed bodies; it signs nothing.")
        if len(signature) != 64:  # noqa: PLR2004 - both algorithms
            raise InvalidSignature(f"A signature has 64 bytes; this one has {len(signature)}.")
        if self.alg == "Ed25519" and signature[:32] in _SMALL_ORDER:
            raise InvalidSignature(
                "The signature's first half is a point of small order; nobody signs so by chance."
            )
        try:
            _verifier(self.alg, self.raw)(signature, message)
        except (CryptographyInvalidSignature, ValueError) as error:
            raise InvalidSignature(
                "The signature does not hold under this key: the bytes or the key differ."
            ) from error


class Signer(Protocol):
    """Something that signs: a key file today, an HSM behind the same two names tomorrow."""

    @property
    def public(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature."""
        ...


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """Signs with an Ed25519 key held in memory."""

    private: ed25519.Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Ed25519Signer:
        """Make a fresh key from the operating system's randomness."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey("Ed25519", self.private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature (RFC 8032, deterministic)."""
        return self.private.sign(message)


@dataclass(frozen=True, slots=True)
class Es256Signer:
    """Signs with a P-256 key held in memory."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Es256Signer:
        """Make a fresh key from the operating system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @property
    def public(self) -> PublicKey:
        """The public half."""
        numbers = self.private.public_key().public_numbers()
        return PublicKey("ES256", b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))

    def sign(self, message: bytes) -> bytes:
        """Return r ‖ s, 64 bytes (RFC 7518 section 3.4)."""
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
