"""Base64url as the protocol wants it: unpadded and canonical (RFC 4648 section 5).

Some JOSE libraries accept text whose last character carries unused bits; two spellings of one leaf would then be two
leaves. Here a text is accepted only if encoding its decoded bytes gives the same text again.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode

from app.domain.errors import NonCanonicalEncoding


def b64u_encode(data: bytes) -> str:
    """Encode bytes as unpadded base64url."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64u_decode(text: str | bytes) -> bytes:
    """Decode canonical, unpadded base64url.

    Raises:
        NonCanonicalEncoding: padding, a character outside the alphabet, or unused bits that are not zero.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        data = urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise NonCanonicalEncoding(
            "This is not base64url. Encode without padding and with - and _."
        ) from error
    # The decoder skips foreign characters and ignores unused bits: re-encoding shows both.
    if urlsafe_b64encode(data).rstrip(b"=") != raw:
        raise NonCanonicalEncoding(
            "This base64url is not canonical. Encode without padding, line breaks or spare bits."
        )
    return data
