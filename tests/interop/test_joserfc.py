"""joserfc, another author's JOSE library, against every leaf our nodes serve, with the keys the served roster lists."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey

from tests.interop.live import Live, bent, flip
from tests.interop.served import ServedLog
from tests.interop.stock_roster import keys_of, only_key_of

ALGORITHMS = ["Ed25519", "ES256"]
REFUSALS = (JoseError, KeyError, ValueError)
"""Its own errors; and where a changed byte is in the header, a kid nobody has, or what is no base64 or no JSON any more."""


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def keys(documents: dict[str, Any]) -> dict[str, Key]:
    """Kid → the contact point's key, as a JWK."""
    found: dict[str, Key] = {}
    for kid, (alg, raw) in keys_of(documents["EE"], "notices").items():
        if alg == "Ed25519":
            found[kid] = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _text(raw)})
        else:
            x, y = _text(raw[1:33]), _text(raw[33:])
            found[kid] = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})
    return found


def verify(leaf: bytes, keys: dict[str, Key]) -> jws.CompactSignature:
    """Raises JoseError."""
    kid = jws.extract_compact(leaf).headers()["kid"]
    return jws.deserialize_compact(leaf, keys[kid], algorithms=ALGORITHMS)


def test_joserfc_verifies_every_leaf_under_the_keys_of_the_served_roster(
    leaves: list[bytes], keys: dict[str, Key], live: Live
) -> None:
    seen = set()
    for leaf in leaves:
        verified = verify(leaf, keys)
        statement = json.loads(verified.payload)
        assert statement["log"] == live.origins["EE"]
        seen.add((verified.headers()["alg"], statement["kind"]))
    assert seen == {("Ed25519", "issue"), ("Ed25519", "amend"), ("Ed25519", "withdraw"), ("ES256", "issue")}


@pytest.mark.parametrize("index", [0, 694, 695, 699], ids=["issue", "amend", "withdraw", "es256"])
def test_joserfc_refuses_a_leaf_with_one_other_character_wherever_it_is(
    leaves: list[bytes], keys: dict[str, Key], index: int
) -> None:
    leaf = leaves[index]
    # The last character of a segment may carry bits that joserfc does not look at; our own parser refuses those.
    for place in range(0, len(leaf) - 1, 7):
        if leaf[place : place + 1] == b"." or leaf[place + 1 : place + 2] == b".":
            continue
        bad = leaf[:place] + (b"A" if leaf[place : place + 1] != b"A" else b"B") + leaf[place + 1 :]
        with pytest.raises(REFUSALS):
            verify(bad, keys)


def test_joserfc_refuses_a_bundle_that_was_altered_on_the_way(live: Live, keys: dict[str, Key]) -> None:
    with bent(live.log, r"entries/000$", flip(-2)) as url, ServedLog(url) as log:
        bundle = log.leaves(256)
    for leaf in bundle[:255]:
        verify(leaf, keys)
    with pytest.raises(REFUSALS):
        verify(bundle[255], keys)


def test_joserfc_refuses_a_leaf_under_another_key(leaves: list[bytes], documents: dict[str, Any]) -> None:
    raw = only_key_of(documents["US"], "notices")
    with pytest.raises(JoseError):
        verify(leaves[0], {"EE/cp/1": OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _text(raw)})})
