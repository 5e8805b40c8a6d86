"""What a node keeps about screening for its own State: portfolios, what they matched, and, if a setting says so, what was asked."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class ScreeningRow(Base):
    """One screening that was made, as far as the setting `screening_record` lets it be kept. Deleting the row forgets it."""

    __tablename__ = "screenings"
    __table_args__ = (Index("ix_screenings_token_id", "token_id", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("api_tokens.id"))
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    parties: Mapped[int] = mapped_column(Integer)
    asked: Mapped[str | None] = mapped_column(Text)  # JSON as it was sent; only with `full`
    found: Mapped[str] = mapped_column(
        Text
    )  # JSON [[party, log_id, idx, position, score, verdict], …]: no content


class WatchlistRow(Base):
    """A stored portfolio of parties of one token."""

    __tablename__ = "watchlists"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("api_tokens.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    threshold: Mapped[float | None] = mapped_column(Float)  # None: the one shipped
    created_at: Mapped[int] = mapped_column(BigInteger)


class WatchEntryRow(Base):
    """One party of a portfolio. `seq` numbers changes at this node: an index in memory reads what came after its last."""

    __tablename__ = "watch_entries"
    __table_args__ = (
        Index("ix_watch_entries_watchlist_id_ref", "watchlist_id", "ref", unique=True),
        Index(
            "ix_watch_entries_left",
            "id",
            sqlite_where=text("screened <> version"),
            postgresql_where=text("screened <> version"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    watchlist_id: Mapped[str] = mapped_column(ForeignKey("watchlists.id"))
    ref: Mapped[str] = mapped_column(String(200))  # the caller's own id of it
    seq: Mapped[int] = mapped_column(BigInteger, unique=True)
    version: Mapped[int] = mapped_column(Integer)
    screened: Mapped[int] = mapped_column(
        Integer, server_default=text("0")
    )  # the version that was screened, or 0
    party: Mapped[str] = mapped_column(Text)  # JSON {"schema", "properties"}
    changed_at: Mapped[int] = mapped_column(BigInteger)


class WatchHitRow(Base):
    """A party of a portfolio that a notice may be about: numbers, and what a person decided. Nothing of the notice's content."""

    __tablename__ = "watch_hits"
    __table_args__ = (
        Index("ix_watch_hits_entry_id", "entry_id", "log_id", "idx", unique=True),
        Index("ix_watch_hits_log_id_idx", "log_id", "idx"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    entry_id: Mapped[int] = mapped_column(ForeignKey("watch_entries.id"))
    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"))
    idx: Mapped[int] = mapped_column(BigInteger)  # the notice
    position: Mapped[int] = mapped_column(Integer)  # of the party in the notice
    score: Mapped[float] = mapped_column(Float)
    entry_version: Mapped[int] = mapped_column(Integer)
    notice_version: Mapped[int] = mapped_column(Integer)
    matched_at: Mapped[int] = mapped_column(BigInteger)
    cleared_by: Mapped[str | None] = mapped_column(String(200))
    cleared_reason: Mapped[str | None] = mapped_column(String(2000))
    cleared_at: Mapped[int | None] = mapped_column(BigInteger)
    cleared_until: Mapped[int | None] = mapped_column(BigInteger)  # unix ms
