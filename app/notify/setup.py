"""What delivering needs to know about this node, gathered once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.notify import retry
from app.notify.guard import UrlPolicy
from app.notify.keys import WebhookKeys

if TYPE_CHECKING:
    import ssl

    from app.models import SubscriptionRow
    from app.settings import Settings


@dataclass(frozen=True, slots=True)
class WebhookSetup:
    """Identity, keys and rules of this node's webhooks.

    Attributes:
        state: the State on whose behalf every subscriber's token asks.
        public_url: base of the links in payloads, without a trailing slash.
        tls: how receivers' certificates are verified; None is the system's authorities.
        require_proof: send nothing but tests to an endpoint that was not proven.
        schedule_ms: waits between attempts.
        keep_ms: how long the delivery log is kept.
    """

    state: str
    public_url: str
    policy: UrlPolicy
    keys: WebhookKeys
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    require_proof: bool = False
    schedule_ms: tuple[int, ...] = retry.SCHEDULE_MS
    keep_ms: int = 30 * retry.DAY

    def may_send_to(self, row: SubscriptionRow) -> bool:
        """Whether an endpoint may be sent what it asks for: full bodies only if it has proven itself."""
        return row.verified_at is not None or (not self.require_proof and row.payload == "thin")

    @classmethod
    def of(cls, settings: Settings) -> WebhookSetup:
        """From the node's settings; makes the webhook keys on first use. Raises UnsafeKeyFile."""
        return cls(
            settings.state,
            settings.public_url,
            UrlPolicy.of(settings.webhook_allow_networks, http=settings.webhook_allow_http),
            WebhookKeys.open(settings.keys_dir, settings.state),
            require_proof=settings.webhook_require_proof,
            schedule_ms=tuple(int(wait) * retry.SECOND for wait in settings.webhook_retry_s)
            or retry.SCHEDULE_MS,
            keep_ms=settings.webhook_log_days * retry.DAY,
        )
