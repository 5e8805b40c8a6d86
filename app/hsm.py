"""Keys in an HSM or smart card, by PKCS#11: the same two names as a key file, `public` and `sign`.

    pkcs11:token=verbale;object=ee-cp;type=private?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/verbale/pin

A key is named by a URI (RFC 7512). Guarantees: the private key never leaves the token; a PIN comes from a file that
nobody else can read or from a prompt, never from the URI itself, the command line, the environment or a log; what the
token returns is checked against the public key before anybody else sees it. Leaves to others: what the key may do.

The package `python-pkcs11` is an extra (`pip install verbale[hsm]`): a node whose keys are files does not load it.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from app.domain.errors import InvalidSignature, Malformed, UnsafeKeyFile
from app.domain.keys import PublicKey
from app.keyfiles import load_private, read_secret_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.domain.keys import Signer

SCHEME: Final = "pkcs11:"
_PATH: Final = ("token", "manufacturer", "serial", "model", "object", "id", "type", "slot-id", "library-description",
                "library-manufacturer", "library-version", "slot-description", "slot-manufacturer")  # fmt: skip
_QUERY: Final = ("module-path", "module-name", "pin-source", "pin-value")
_ED25519_PARAMETERS: Final = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
"""How tokens spell the curve: the OID 1.3.101.112 (RFC 8410), or the name (PKCS#11 3.0)."""
_P256_PARAMETERS: Final = bytes.fromhex("06082a8648ce3d030107")


def open_key(
    name: str, *, passphrase: bytes | None = None, ask_pin: Callable[[], str] | None = None
) -> Signer:
    """A signer by the name an operator gives it: a `pkcs11:` URI, or the path of a key file.

    Raises:
        As `open_hsm` and `app.keyfiles.load_private`.
    """
    if name.startswith(SCHEME):
        return open_hsm(name, ask_pin=ask_pin)
    return load_private(Path(name), passphrase=passphrase)


class HsmUnavailable(UnsafeKeyFile):
    """The token, its module or the key in it cannot be used."""

    code = "hsm-unavailable"


@dataclass(frozen=True, slots=True)
class KeyUri:
    """A parsed `pkcs11:` URI. `id` is bytes; everything else text.

    Attributes:
        module: path of the PKCS#11 library.
        pin_file: file whose first line is the PIN, or None: ask.
    """

    token: str | None
    serial: str | None
    object: str | None
    id: bytes | None
    module: Path
    pin_file: Path | None

    @classmethod
    def parse(cls, text: str) -> KeyUri:
        """Read a URI by RFC 7512, strictly: an attribute that is not understood could have named another key.

        Raises:
            Malformed: not such a URI, no module-path, nothing that names a key, or a PIN in it.
        """
        if not text.startswith(SCHEME):
            raise Malformed("A key in a token is named by a URI that begins with pkcs11:.")
        path, _, query = text.removeprefix(SCHEME).partition("?")
        said = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
        if "pin-value" in said:
            raise Malformed(
                "The URI holds a PIN, which would be in your shell's history and in process lists. Put the PIN into a file of "
                "mode 0600 and name it with pin-source=file:/path; then change the PIN."
            )
        if said.get("type", b"private") != b"private":
            raise Malformed(
                "The URI names something that is no private key: leave type out, or say type=private."
            )
        if strange := sorted(
            set(said) - {"token", "serial", "object", "id", "type", "module-path", "pin-source"}
        ):
            raise Malformed(f"The URI has attributes this version does not compare: {', '.join(strange)}.")
        if "module-path" not in said:
            raise Malformed("The URI lacks module-path: the path of the token's PKCS#11 library.")
        if "object" not in said and "id" not in said:
            raise Malformed("The URI names no key: give object, id or both.")
        words = {name: value.decode() for name, value in said.items() if name != "id"}
        return cls(
            words.get("token"),
            words.get("serial"),
            words.get("object"),
            said.get("id"),
            Path(words["module-path"]),
            _pin_file(words.get("pin-source")),
        )


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for item in text.split(separator) if text else ():
        name, equals, value = item.partition("=")
        if not equals or name not in known or re.search(r"%(?![0-9A-Fa-f]{2})", value):
            raise Malformed(
                f"{name!r} is no attribute of a pkcs11: URI here, or its value is not percent-encoded."
            )
        if name in found:
            raise Malformed(f"The URI names {name} twice.")
        try:
            found[name] = unquote(value, encoding="latin-1").encode("latin-1")
            if name != "id":
                found[name].decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError) as error:
            raise Malformed(f"The URI's {name} is not UTF-8 in percent-encoding.") from error
    return found


def _pin_file(source: str | None) -> Path | None:
    if source is None:
        return None
    if not source.startswith("file:") or not source.removeprefix("file:").removeprefix("//").startswith("/"):
        raise Malformed("pin-source is a file of mode 0600, by its absolute path: file:/etc/verbale/pin.")
    return Path(source.removeprefix("file:").removeprefix("//"))


# ── the token ─────────────────────────────────────────────────────────────────────────────────────────────────────

_sessions: dict[tuple[Path, str | None, str | None], Any] = {}
_opening = threading.Lock()
"""One login for each token and process: a second one is an error in PKCS#11."""


@dataclass(frozen=True, slots=True)
class HsmSigner:
    """Signs in a token. Satisfies `app.domain.keys.Signer`; threads take turns, since a session does one thing at a time."""

    public: PublicKey
    _private: Any = field(repr=False)
    _mechanism: Any = field(repr=False)
    _turn: threading.Lock = field(repr=False, default_factory=threading.Lock)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature; for ES256 r ‖ s over SHA-256.

        Raises:
            HsmUnavailable: the token refused, is gone, or returned something that does not verify.
        """
        import hashlib  # noqa: PLC0415

        import pkcs11  # noqa: PLC0415 - the extra

        data = message if self.public.alg == "Ed25519" else hashlib.sha256(message).digest()
        try:
            with self._turn:
                signature = bytes(self._private.sign(data, mechanism=self._mechanism))
            self.public.verify(signature, message)
        except (pkcs11.exceptions.PKCS11Error, InvalidSignature) as error:
            raise HsmUnavailable(
                f"The token did not sign: {type(error).__name__}. Is it connected, and the key still there?"
            ) from error
        return signature


def open_hsm(text: str, *, ask_pin: Callable[[], str] | None = None) -> HsmSigner:
    """Log in to the token and find the key.

    Args:
        ask_pin: prompts a person, where the URI names no file.

    Raises:
        Malformed: see `KeyUri.parse`.
        HsmUnavailable: no such module, token or key, a wrong PIN, or a key that is neither Ed25519 nor P-256.
        UnsafeKeyFile: the file with the PIN can be read by others.
    """
    uri = KeyUri.parse(text)
    try:
        import pkcs11  # noqa: PLC0415 - the extra
    except ImportError as error:
        raise HsmUnavailable(
            "Keys in a token need the package python-pkcs11. Install it: pip install 'verbale[hsm]'"
        ) from error
    try:
        session = _session(uri, ask_pin)
        selector: Mapping[Any, Any] = {
            name: value
            for name, value in (
                (pkcs11.Attribute.CLASS, pkcs11.ObjectClass.PRIVATE_KEY),
                (pkcs11.Attribute.LABEL, uri.object),
                (pkcs11.Attribute.ID, uri.id),
            )
            if value is not None
        }
        found = list(session.get_objects(selector))
        if len(found) != 1:
            raise HsmUnavailable(f"The token has {len(found)} private keys of that name; one is needed.")
        return _signer(session, found[0], selector)
    except pkcs11.exceptions.PKCS11Error as error:
        # The library's text may hold what it was given; its class says enough.
        raise HsmUnavailable(f"The token cannot be used: {type(error).__name__}.") from error


def _session(uri: KeyUri, ask_pin: Callable[[], str] | None) -> Any:  # noqa: ANN401 - pkcs11.Session
    import pkcs11  # noqa: PLC0415

    place = (uri.module, uri.token, uri.serial)
    with _opening:
        if place in _sessions:
            return _sessions[place]
        try:
            library = pkcs11.lib(str(uri.module))
        except (RuntimeError, pkcs11.exceptions.PKCS11Error) as error:
            raise HsmUnavailable(f"The PKCS#11 library {uri.module} cannot be loaded.") from error
        tokens = [
            slot.get_token()
            for slot in library.get_slots(token_present=True)
            if _is_wanted(slot.get_token(), uri)
        ]
        if len(tokens) != 1:
            raise HsmUnavailable(f"{uri.module} shows {len(tokens)} tokens of that name; one is needed.")
        pin = _pin(uri, ask_pin)
        _sessions[place] = session = tokens[0].open(user_pin=pin)
        return session


def log_out() -> None:
    """Leave every token. The signers that were opened in them sign no more."""
    with _opening:
        for session in _sessions.values():
            session.close()
        _sessions.clear()


def _is_wanted(token: Any, uri: KeyUri) -> bool:  # noqa: ANN401 - pkcs11.Token
    label = (token.label or "").rstrip("\x00 ")
    serial = (token.serial or b"").rstrip(b"\x00 ").decode("utf-8", errors="replace")
    return (uri.token is None or uri.token == label) and (uri.serial is None or uri.serial == serial)


def _pin(uri: KeyUri, ask_pin: Callable[[], str] | None) -> str:
    if uri.pin_file is not None:
        lines = read_secret_file(uri.pin_file).decode("utf-8", errors="replace").splitlines()
        if not lines or not lines[0]:
            raise UnsafeKeyFile(f"The first line of {uri.pin_file} is empty. Put the PIN there.")
        return lines[0]
    if ask_pin is None:
        raise UnsafeKeyFile(
            "Nobody is here to type the PIN: name a file with pin-source=file:/path in the URI."
        )
    return ask_pin()


def _signer(session: Any, private: Any, selector: Mapping[Any, Any]) -> HsmSigner:  # noqa: ANN401 - pkcs11 objects
    import pkcs11  # noqa: PLC0415

    public_selector = {**selector, pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY}
    publics = list(session.get_objects(public_selector))
    if len(publics) != 1:
        raise HsmUnavailable(
            "The token holds no public key beside the private one. Import it under the same name."
        )
    parameters = bytes(publics[0][pkcs11.Attribute.EC_PARAMS])
    point = _octets(bytes(publics[0][pkcs11.Attribute.EC_POINT]))
    if parameters in _ED25519_PARAMETERS:
        return HsmSigner(PublicKey.admit("Ed25519", point), private, pkcs11.Mechanism.EDDSA)
    if parameters == _P256_PARAMETERS:
        return HsmSigner(PublicKey.admit("ES256", point), private, pkcs11.Mechanism.ECDSA)
    raise HsmUnavailable("The key in the token is neither Ed25519 nor P-256.")


def _octets(value: bytes) -> bytes:
    """CKA_EC_POINT is a DER OCTET STRING around the point; some tokens leave the wrapping out."""
    if len(value) > 2 and value[0] == 4 and value[1] == len(value) - 2:  # noqa: PLR2004 - tag and short length
        return value[2:]
    return value
