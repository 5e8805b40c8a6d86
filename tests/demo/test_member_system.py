"""The demo's member system judges deliveries as the public Standard Webhooks library does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks import Webhook

from app.demo.member_system import MemberSystem, fault_of
from app.notify.signing import new_secret, secret_text

BODY = b'{"type":"notice.issued","data":{}}'
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def headers(secret: str, *, at: datetime = NOW, body: bytes = BODY) -> dict[str, str]:
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }


def test_a_delivery_signed_by_the_public_library_is_accepted() -> None:
    secret = secret_text(new_secret())
    assert fault_of(secret, headers(secret), BODY, now=NOW.timestamp()) is None


def test_one_good_signature_among_several_is_enough() -> None:
    secret = secret_text(new_secret())
    good = headers(secret)
    good["webhook-signature"] = f"v1a,AAAA v1,AAAA {good['webhook-signature']}"
    assert fault_of(secret, good, BODY, now=NOW.timestamp()) is None


@pytest.mark.parametrize("late", [timedelta(seconds=301), timedelta(seconds=-301)])
def test_a_delivery_five_minutes_off_is_refused(late: timedelta) -> None:
    secret = secret_text(new_secret())
    assert fault_of(secret, headers(secret), BODY, now=(NOW + late).timestamp()) is not None


def test_a_changed_body_or_another_secret_is_refused() -> None:
    secret = secret_text(new_secret())
    good = headers(secret)
    assert fault_of(secret, good, BODY + b" ", now=NOW.timestamp()) is not None
    assert fault_of(secret_text(new_secret()), good, BODY, now=NOW.timestamp()) is not None


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_delivery_without_one_of_the_headers_is_refused(missing: str) -> None:
    secret = secret_text(new_secret())
    part = {name: value for name, value in headers(secret).items() if name != missing}
    assert fault_of(secret, part, BODY, now=NOW.timestamp()) is not None


def test_the_server_answers_204_to_what_verifies_and_401_to_the_rest() -> None:
    receiver = MemberSystem()
    try:
        receiver.secret = secret_text(new_secret())
        now = datetime.now(UTC)
        good = httpx.post(
            receiver.url, content=BODY, headers=headers(receiver.secret, at=now), trust_env=False, timeout=60
        )
        bad = httpx.post(
            receiver.url, content=b"{}", headers=headers(receiver.secret, at=now), trust_env=False, timeout=60
        )
    finally:
        receiver.close()
    assert (good.status_code, bad.status_code) == (204, 401)
    first, second = receiver.arrived.get_nowait(), receiver.arrived.get_nowait()
    assert first.fault is None
    assert first.event["type"] == "notice.issued"
    assert second.fault is not None
