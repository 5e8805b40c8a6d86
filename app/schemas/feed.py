"""Wire shapes of `/v1/feed`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.domain.events import EventType


class FeedItem(BaseModel):
    """One event. `type`, `timestamp` and `data` are what a webhook says of it."""

    model_config = ConfigDict(title="Event")

    cursor: str = Field(description="Just after this event.")
    id: str = Field(description="The same for this event whenever it is read at this node.")
    type: EventType
    timestamp: datetime = Field(description="When this node recorded it.")
    live: bool = Field(description="False: history that a first catch-up with a log brought.")
    data: dict[str, Any]


class FeedOut(BaseModel):
    """Events in the order in which this node recorded them."""

    model_config = ConfigDict(title="Feed")

    items: list[FeedItem]
    next: str = Field(description="The cursor to go on with, also when there are no items.")
    more: bool = Field(description="There may be more at once: do not wait.")
