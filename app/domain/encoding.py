"""Base64url as the protocol wants it: unpadded and canonical (RFC 4648 section 5).

Some JOSE libraries accept text whose last character carries unused bits; two spellings of one leaf would then be two
leaves. Here a text is accepted only if encoding its decoded bytes gives the same text again.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64
from typing import Final

from app.domain.errors import NonCanonicalEncoding

_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_PADDING: Final = (b"", b"===", b"==", b"=")


def b64u_encode(data: bytes) -> str:
    """Encode bytes as unpadded base64url."""
    return _encode(data).decode("ascii")


def _encode(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def b64u_decode(text: str | bytes) -> bytes:
    """Decode canonical, unpadded base64url.

    Raises:
        NonCanonicalEncoding: padding, a character outside the alphabet, or unused bits that are not zero.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        data = a2b_base64(raw.translate(_TO_STANDARD) + _PADDING[len(raw) % 4])
    except (UnicodeEncodeError, Error) as error:
        raise NonCanonicalEncoding(
            "This is not base64url. Encode without padding and with - and _."
        ) from error
    # The decoder skips foreign characters and ignores unused bits: re-encoding shows both.
    if _encode(data) != raw:
        raise NonCanonicalEncoding(
            "This base64url is not canonical. Encode without padding, line breaks or spare bits."
        )
    return data
