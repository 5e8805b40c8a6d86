"""Keeping a verified roster fresh from other nodes, and serving it on.

Guarantees: what `roster` holds was verified from the pinned root, never goes back to an earlier version, and obeys the
rules of succession against the one before; a source that is down, lags or lies costs a line in `outcomes` and nothing
else. What was adopted lies in `repository`, complete: any other node can use it as its source. Leaves to others: when to
refresh, and what a node still does while its roster is expired (it reads, and confirms nothing new).

The download follows python-tuf's own client (`tuf.ngclient.Updater`): its order of checks is the specification's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import httpx
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from app.domain.errors import Refused, RosterExpired, RosterMissing
from app.domain.roster import Roster
from app.roster import layout
from app.roster.ceremony import check_adoption, write_atomic
from app.roster.errors import RosterRefused, RosterSourceFault
from app.roster.verify import BEGINNING, VerifiedRoster, directory_reader, expiry_sentence, tuf_errors, verify

log = logging.getLogger(__name__)

FILE_SECONDS: Final = 30.0
"""The longest one file may take: a source that trickles bytes is as good as down."""

REDIRECTS: Final = range(300, 400)
"""Following one would let a source point this node at any address; a roster is served where the settings say."""

Source = str | Path
"""A base URL such as `https://node.example/roster`, or a repository directory."""


# ── fetchers ──────────────────────────────────────────────────────────────────────────────────────────────────────


class HttpFetcher(FetcherInterface):
    """Fetches over httpx: no redirects, no compression (so no bombs), bounded time. python-tuf bounds the size."""

    def __init__(self, client: httpx.Client | None = None) -> None:
        """Use `client`, or one with short timeouts that takes no proxy from the environment."""
        self._client = client or httpx.Client(timeout=httpx.Timeout(10.0, connect=5.0), trust_env=False)

    def _fetch(self, url: str) -> Iterator[bytes]:
        deadline = time.monotonic() + FILE_SECONDS
        headers = {"accept-encoding": "identity"}
        try:
            with self._client.stream("GET", url, headers=headers, follow_redirects=False) as response:
                if response.status_code != httpx.codes.OK:
                    raise DownloadHTTPError(f"{url} answered {response.status_code}", response.status_code)
                for chunk in response.iter_raw():
                    if time.monotonic() > deadline:
                        raise DownloadError(f"{url} took longer than {FILE_SECONDS:.0f} s")
                    yield chunk
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise DownloadError(f"{url}: {type(error).__name__}: {error}") from error


class DirectoryFetcher(FetcherInterface):
    """Reads from a repository directory as if it were served."""

    BASE: Final = "directory:"

    def __init__(self, repository: Path) -> None:
        """Serve `repository`."""
        self._read = directory_reader(repository)

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(self.BASE).lstrip("/")
        raw = self._read(path)
        if raw is None:
            raise DownloadHTTPError(f"{path} is not there", 404)
        yield raw


class _Watch(FetcherInterface):
    """Passes a fetcher's bytes on and keeps the last timestamp seen, to tell a lagging source from a lying one."""

    def __init__(self, inner: FetcherInterface) -> None:
        self._inner = inner
        self.timestamp = b""

    def _fetch(self, url: str) -> Iterator[bytes]:
        seen = bytearray()
        for chunk in self._inner.fetch(url):
            if len(seen) <= layout.MAX_TIMESTAMP:
                seen += chunk
            yield chunk
        if url.endswith("/timestamp.json"):
            self.timestamp = bytes(seen)


def _set_reference_time(updater: Updater, at: datetime) -> None:
    """Set the time that expiries are compared with.

    python-tuf 7 takes the wall clock when an Updater is made and offers no argument. Nothing is compared before `refresh`,
    so setting it here is complete; `test_the_reference_time_of_python_tuf_can_still_be_set` fails if that ever changes.
    """
    updater._trusted_set.reference_time = at  # noqa: SLF001 - the seam described above


# ── the client ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SourceOutcome:
    """What one source was good for in the last refresh.

    `current`: verified and not older than ours. `older`: correctly signed, but behind what we hold (a lagging mirror or a
    rollback). `expired`: its newest is past its expiry (a frozen mirror, or nobody refreshes). `unreachable`: no answer, or
    not there. `invalid`: it answered something that does not verify or may not be adopted.
    """

    source: str
    status: Literal["current", "older", "expired", "unreachable", "invalid"]
    detail: str


class RosterClient:
    """Holds the last good roster of one node.

    Attributes:
        outcomes: what each source was good for in the last `refresh`.
        repository: directory with the adopted files, servable below `/roster/`.
    """

    def __init__(
        self,
        directory: Path,
        sources: Sequence[Source],
        pinned_root: bytes,
        *,
        fetcher: FetcherInterface | None = None,
    ) -> None:
        """Keep everything below `directory` (this process alone writes there).

        `fetcher` serves the URL sources; the default is `HttpFetcher()`. Nothing is read or fetched yet.
        """
        self.repository = directory / "repository"
        self.outcomes: tuple[SourceOutcome, ...] = ()
        self._cache = directory / "cache"
        self._sources = tuple(sources)
        self._pinned = pinned_root
        self._fetcher = fetcher
        self._verified: VerifiedRoster | None = None
        self._lock = threading.Lock()

    # Reading.

    @property
    def verified(self) -> VerifiedRoster | None:
        """The last good roster with its documents and expiries, or None."""
        return self._verified

    @property
    def roster(self) -> Roster:
        """The last good roster, expired or not.

        Raises:
            RosterMissing: there is none yet.
        """
        if self._verified is None:
            raise RosterMissing(
                "This node holds no verified roster yet. Check the roster sources and the pinned root in its settings."
            )
        return self._verified.roster

    def require_fresh(self, at: int) -> Roster:
        """The last good roster, provided it has not expired.

        Raises:
            RosterMissing, RosterExpired
        """
        roster = self.roster
        if roster.expires <= at:
            assert self._verified is not None  # noqa: S101 - `roster` has raised otherwise
            raise RosterExpired(expiry_sentence(self._verified.expiries, at))
        return roster

    def read(self, path: str) -> bytes | None:
        """A file below `/roster/` as adopted, or None; any path that is no roster file is None too."""
        return directory_reader(self.repository)(path)

    def load_local(self, at: int) -> Roster:
        """Verify and adopt what this node kept, without network. An expired roster is loaded and logged as such.

        Raises:
            RosterMissing: nothing was kept, or it does not verify from the pinned root.
        """
        with self._lock:
            try:
                self._verified = verify(directory_reader(self.repository), self._pinned)
            except Refused as error:
                raise RosterMissing(
                    f"The roster kept in {self.repository} cannot be used: {error} Refresh it from a source, or check that the "
                    "pinned root is this federation's."
                ) from error
            self._warn(self._verified, at)
            return self._verified.roster

    # Refreshing.

    def refresh(self, at: int) -> Roster:
        """Ask every source, adopt the newest roster that verifies, and return it. Network and disk; no database.

        When no source could be reached the last good roster is returned and a warning logged.

        Raises:
            RosterMissing: there is still none.
            RosterExpired: the last good one has expired and no source has a newer one. `roster` keeps it, for reading.
            RosterSourceFault: every source that answered was `invalid`. `roster` keeps the last good one.
        """
        with self._lock:
            self.outcomes = tuple(self._ask(source, at) for source in self._sources)
            for outcome in self.outcomes:
                level = logging.DEBUG if outcome.status == "current" else logging.WARNING
                extra = {
                    "action": f"roster.source.{outcome.status}",
                    "source": outcome.source,
                    "detail": outcome.detail,
                }
                log.log(level, "roster source %s: %s", outcome.source, outcome.status, extra=extra)
            self._verified = self._verified or self._kept()
            answered = [o for o in self.outcomes if o.status != "unreachable"]
            if answered and all(o.status == "invalid" for o in answered):
                raise RosterSourceFault("; ".join(f"{o.source}: {o.detail}" for o in answered))
            roster = self.require_fresh(at)
            assert self._verified is not None  # noqa: S101 - `require_fresh` has raised otherwise
            self._warn(self._verified, at)
            return roster

    def _kept(self) -> VerifiedRoster | None:
        """What an earlier run adopted; None when there is nothing or it is damaged, which a new adoption mends."""
        if not (self.repository / "metadata" / "timestamp.json").exists():
            return None
        try:
            return verify(directory_reader(self.repository), self._pinned)
        except Refused as error:
            log.warning("kept roster unusable: %s", error, extra={"action": "roster.kept-unusable"})
            return None

    def _warn(self, verified: VerifiedRoster, at: int) -> None:
        if verified.roster.expires <= at:
            sentence = expiry_sentence(verified.expiries, at)
            log.warning("roster expired: %s", sentence, extra={"action": "roster.expired"})
        for code in verified.lapsed(at):
            extra = {"action": "roster.state-lapsed", "state": code}
            log.warning("the roster document of %s is past its expiry", code, extra=extra)

    def _ask(self, source: Source, at: int) -> SourceOutcome:
        """One source, from download to adoption. Everything it can do wrong ends in an outcome."""
        name = str(source)
        base = DirectoryFetcher.BASE if isinstance(source, Path) else source.rstrip("/")
        if not isinstance(source, Path) and self._fetcher is None:
            self._fetcher = HttpFetcher()
        inner = DirectoryFetcher(source) if isinstance(source, Path) else self._fetcher
        assert inner is not None  # noqa: S101 - set above
        watch = _Watch(inner)
        try:
            verified = self._download(base, watch, at)
            if verified is not None:
                self._adopt(verified)
        except DownloadLengthMismatchError as error:
            return SourceOutcome(name, "invalid", f"a file is larger than it may be: {error}")
        except DownloadHTTPError as error:
            status: Literal["invalid", "unreachable"] = (
                "invalid" if error.status_code in REDIRECTS else "unreachable"
            )
            return SourceOutcome(name, status, str(error))
        except DownloadError as error:
            return SourceOutcome(name, "unreachable", str(error.__cause__ or error))
        except ExpiredMetadataError as error:
            return SourceOutcome(name, "expired", str(error))
        except BadVersionNumberError as error:
            return SourceOutcome(name, "older" if self._is_older(watch.timestamp) else "invalid", str(error))
        except (RepositoryError, Refused, ValueError, TypeError, KeyError, AttributeError) as error:
            return SourceOutcome(name, "invalid", f"{type(error).__name__}: {error}")
        return SourceOutcome(name, "current", f"version {self.roster.version}")

    def _download(self, base: str, fetcher: FetcherInterface, at: int) -> VerifiedRoster | None:
        """Let python-tuf bring the cache up to date and verify the whole of it; None when nothing is new."""
        self._cache.mkdir(parents=True, exist_ok=True)
        config = UpdaterConfig(
            max_root_rotations=layout.MAX_ROOTS,
            root_max_length=layout.MAX_METADATA,
            timestamp_max_length=layout.MAX_TIMESTAMP,
            snapshot_max_length=layout.MAX_METADATA,
            targets_max_length=layout.MAX_METADATA,
        )
        updater = Updater(
            str(self._cache),
            f"{base}/metadata/",
            target_base_url=f"{base}/targets/",
            fetcher=fetcher,
            config=config,
            bootstrap=self._pinned,
        )
        _set_reference_time(updater, layout.moment(at))
        updater.refresh()
        if self._unchanged():
            return None
        # The top level is fresh. A State whose own document has lapsed must not stop the others' (see verify).
        _set_reference_time(updater, BEGINNING)
        targets: Metadata[Targets] = Metadata.from_bytes((self._cache / "targets.json").read_bytes())
        names = [layout.FEDERATION]
        delegations = targets.signed.delegations
        for role in (delegations.roles or {}) if delegations else {}:
            code = layout.code_of_role(role)
            if code is None:
                raise RosterRefused(f"The delegation {role!r} is not of the form state-ee.")
            names.append(layout.state_target(code))
        for name in names:
            info = updater.get_targetinfo(name)
            if info is None or info.length > layout.MAX_TARGET:
                raise RosterRefused(f"The target {name} is missing or larger than {layout.MAX_TARGET} bytes.")
            path = layout.target_path(name, info.hashes.get("sha256", ""))
            if not layout.is_served(path):
                raise RosterRefused(f"The target {name} must be named by its SHA-256.")
            local = str(self._cache / path)
            if updater.find_cached_target(info, local) is None:
                updater.download_target(info, local)
        return verify(self._read_cache, self._pinned)

    def _read_cache(self, path: str) -> bytes | None:
        """Read python-tuf's cache by the names a repository has: it keeps one version of each role, and every root."""
        if path.startswith("targets/"):
            file = self._cache / path
        elif path.endswith(".root.json"):
            file = self._cache / "root_history" / path.removeprefix("metadata/")
        else:
            file = self._cache / f"{path.removesuffix('.json').removeprefix('metadata/').split('.')[-1]}.json"
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None

    def _unchanged(self) -> bool:
        """Whether the cache's timestamp and root are those already adopted: then so is everything they name."""
        if self._verified is None:
            return False
        root = layout.metadata_path("root", self._verified.root.version)
        newer = layout.metadata_path("root", self._verified.root.version + 1)
        files = self._verified.files
        return (
            self._read_cache("metadata/timestamp.json") == files["metadata/timestamp.json"]
            and self._read_cache(newer) is None
            and self._read_cache(root) == files.get(root, self._pinned)
        )

    def _is_older(self, timestamp: bytes) -> bool:
        """Whether a source's timestamp is just an earlier one than ours."""
        ours = self._read_cache("metadata/timestamp.json")
        if not timestamp or ours is None:
            return False
        with tuf_errors("timestamp"):
            theirs: Metadata[Any] = Metadata.from_bytes(timestamp)
            return bool(theirs.signed.version < Metadata[Any].from_bytes(ours).signed.version)

    def _adopt(self, verified: VerifiedRoster) -> None:
        """Make `verified` the last good roster, on disk first; its timestamp is written last.

        Raises:
            RosterRefused: it takes back what may not be taken back; the last good one stays.
        """
        previous = self._verified or self._kept()
        if previous is not None:
            check_adoption(previous, verified.federation, verified.states)
        for path, raw in verified.files.items():
            target = self.repository / path
            if not target.is_file() or target.read_bytes() != raw:
                write_atomic(target, raw)
        pinned = layout.metadata_path("root", _version(self._pinned))
        if not (self.repository / pinned).exists():
            write_atomic(self.repository / pinned, self._pinned)
        self._verified = verified


def _version(root: bytes) -> int:
    metadata: Metadata[Any] = Metadata.from_bytes(root)
    return int(metadata.signed.version)
