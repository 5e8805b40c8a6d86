"""The soak's receiver believes only what holds. The soak itself is a command: it takes minutes."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.bench.soak_receiver import genuine
from app.notify import signing

if TYPE_CHECKING:
    from app.notify.setup import WebhookSetup

BODY = b'{"type":"notice.issued"}'


def test_the_receiver_believes_only_signatures_that_hold_by_every_scheme_agreed_on(
    setup: WebhookSetup,
) -> None:
    secret, now = signing.new_secret(), int(time.time())
    key = Ed25519PublicKey.from_public_bytes(setup.keys.signer.public.raw)
    v1 = signing.sign_v1(secret, "m", now, BODY)
    v1a = signing.sign_v1a(setup.keys.signer, "m", now, BODY)
    both = signing.headers("m", now, [v1, v1a])
    assert genuine(both, BODY, secret, None)
    assert genuine(both, BODY, None, key)
    assert genuine(both, BODY, secret, key)
    assert not genuine(signing.headers("m", now, [v1]), BODY, secret, key)
    assert not genuine(both, BODY, None, None)
    assert not genuine(both, BODY + b" ", secret, None)
    assert not genuine(both, BODY, signing.new_secret(), None)
    assert not genuine(both | {"webhook-id": "other"}, BODY, None, key)
    assert not genuine(both | {"webhook-timestamp": str(now - 301)}, BODY, secret, None)
    assert not genuine({}, BODY, secret, None)
    assert not genuine(
        both | {"webhook-signature": f"v1a,{base64.b64encode(b'x' * 64).decode()}"}, BODY, None, key
    )
