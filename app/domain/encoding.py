"""Base64url as the protocol wants it: unpadded and canonical (RFC 4648 section 5).

Some JOSE libraries accept text whose last character carries unused bits; two spellings of one leaf would then be two
leaves. Here a text is accepted only if encoding its decoded bytes gives the same text again.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64
from typing import Final

from app.domain.errors import NonCanonicalEncoding

_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/   ")
"""What belongs to the other alphabet, and padding, becomes a character of none."""
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_PADDING: Final = (b"", b"===", b"==", b"=")
_LAST: Final[tuple[frozenset[int], ...]] = (
    frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
    frozenset(),
    frozenset(b"AQgw"),
    frozenset(b"AEIMQUYcgkosw048"),
)
"""By length modulo 4, the last characters that leave no bit unused: of 6, none can be, then 4 and 2 are."""


def b64u_encode(data: bytes) -> str:
    """Encode bytes as unpadded base64url."""
    return b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def b64u_decode(text: str | bytes) -> bytes:
    """Decode canonical, unpadded base64url.

    Raises:
        NonCanonicalEncoding: padding, a character outside the alphabet, or unused bits that are not zero.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        data = a2b_base64(raw.translate(_TO_STANDARD) + _PADDING[len(raw) % 4], strict_mode=True)
    except (UnicodeEncodeError, Error) as error:
        raise NonCanonicalEncoding(
            "This is not base64url. Encode without padding and with - and _."
        ) from error
    # The decoder refuses foreign characters and ignores unused bits, which are all in the last one.
    if raw and raw[-1] not in _LAST[len(raw) % 4]:
        raise NonCanonicalEncoding(
            "This base64url is not canonical. Encode without padding, line breaks or spare bits."
        )
    return data
