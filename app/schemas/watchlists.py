"""Wire shapes of `/v1/watchlists`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(max_length=200, examples=["Portfolio of telecom licences"])]
Threshold = Annotated[
    float | None, Field(description="least score of a hit, above 0 to 1; null is the one shipped")
]


class WatchlistIn(BaseModel):
    """A list to make."""

    model_config = ConfigDict(extra="forbid", title="Watch-list to make")

    name: Name
    threshold: Threshold = None


class WatchlistChange(BaseModel):
    """What to change; members left out stay as they are."""

    model_config = ConfigDict(extra="forbid", title="Change of a watch-list")

    name: Name = ""
    threshold: Threshold = None

    def changes(self) -> dict[str, Any]:
        """The members that were sent."""
        return self.model_dump(exclude_unset=True)


class EntriesIn(BaseModel):
    """Parties to put in, each under its own `id`: as in a screening, `{"id", "schema", "properties"}`."""

    model_config = ConfigDict(extra="forbid", title="Parties to watch")

    parties: Annotated[list[Any], Field(min_length=1, max_length=1000)]


class ClearanceIn(BaseModel):
    """A person's decision that a hit is somebody else."""

    model_config = ConfigDict(extra="forbid", title="Clearance of a hit")

    by: Annotated[str, Field(min_length=1, max_length=200, description="the person who decided")]
    reason: Annotated[
        str, Field(min_length=1, max_length=2000, examples=["Another date of birth; passport seen."])
    ]
    until: Annotated[
        AwareDatetime, Field(description="when the hit is heard again; at most three years ahead")
    ]
