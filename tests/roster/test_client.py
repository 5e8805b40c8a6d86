"""Keeping a roster fresh: honest, absent, lagging, frozen and lying sources; python-tuf's own client as the judge of ours."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient import Updater, UpdaterConfig

from app.domain.errors import RosterExpired, RosterMissing
from app.domain.json import canonical
from app.roster import HttpFetcher, RosterClient, RosterSourceFault, ceremony, layout, roster_from_repository
from app.roster import client as client_module
from tests.roster.federation import AT, DAY, Federation, Files, Key, resign, rotate, sign_with

BASE = "https://node.example/roster"


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """A plain web server on loopback over a directory; nothing of ours in it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetching(handler: Callable[[httpx.Request], httpx.Response]) -> HttpFetcher:
    return HttpFetcher(httpx.Client(transport=httpx.MockTransport(handler)))


def reply(raw: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    """An answer that comes as a stream, as from a network: a ready body cannot be read raw."""
    return httpx.Response(200, content=iter([raw]), headers=headers)


def always(files: Files) -> Callable[[], Files]:
    return lambda: files


def answering(make: Callable[[], httpx.Response]) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: make()


def web(files: Callable[[], dict[str, bytes]]) -> HttpFetcher:
    """A web server over a dictionary."""

    def answer(request: httpx.Request) -> httpx.Response:
        raw = files().get(request.url.path.removeprefix("/roster/"))
        return httpx.Response(404) if raw is None else reply(raw)

    return fetching(answer)


def statuses(client: RosterClient) -> list[str]:
    return [outcome.status for outcome in client.outcomes]


# ── python-tuf's own client ───────────────────────────────────────────────────────────────────────────────────────


def test_the_stock_client_accepts_the_repository_over_http(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster", at=int(time.time()))
    federation.found()
    rotate_now(federation)
    with served(federation.repository) as url:
        (tmp_path / "targets").mkdir()
        updater = Updater(
            str(tmp_path / "metadata"),
            f"{url}/metadata/",
            target_dir=str(tmp_path / "targets"),
            target_base_url=f"{url}/targets/",
            bootstrap=federation.root,
        )
        updater.refresh()
        for name in ("federation.json", "states/ee.json", "states/us.json"):
            info = updater.get_targetinfo(name)
            assert info is not None
            value = json.loads(Path(updater.download_target(info)).read_bytes())
            assert value["v"] == 1
        assert updater.get_targetinfo("states/fi.json") is None


def rotate_now(federation: Federation) -> None:
    at = federation.at
    ceremony.propose_renewal(federation.repository, "renew", ["root", "targets", "state-ee"], at=at)
    federation.finish("renew")


def test_the_stock_client_accepts_what_one_of_our_nodes_serves_on(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster", at=int(time.time()))
    federation.found()
    node = RosterClient(tmp_path / "node", [federation.repository], federation.root)
    node.refresh(federation.at)
    with served(node.repository) as url:
        updater = Updater(str(tmp_path / "m"), f"{url}/metadata/", bootstrap=federation.root)
        updater.refresh()
        assert updater.get_targetinfo("states/jp.json") is not None
        second = RosterClient(tmp_path / "second", [url], federation.root)
        assert second.refresh(federation.at) == node.roster


def test_the_stock_client_refuses_an_expired_roster(federation: Federation, tmp_path: Path) -> None:
    with served(federation.repository) as url:
        updater = Updater(str(tmp_path / "m"), f"{url}/metadata/", bootstrap=federation.root)
        client_module._set_reference_time(updater, layout.moment(AT + 8 * DAY))
        with pytest.raises(ExpiredMetadataError):
            updater.refresh()


def test_the_reference_time_of_python_tuf_can_still_be_set(federation: Federation, tmp_path: Path) -> None:
    """The one private name of python-tuf this project writes to; without it no clock could be injected."""
    for at, fine in ((AT, True), (AT + 8 * DAY, False)):
        directory = tmp_path / str(at)
        updater = Updater(
            str(directory),
            "directory:/metadata/",
            fetcher=client_module.DirectoryFetcher(federation.repository),
            config=UpdaterConfig(),
            bootstrap=federation.root,
        )
        client_module._set_reference_time(updater, layout.moment(at))
        if fine:
            updater.refresh()
        else:
            with pytest.raises(RepositoryError):
                updater.refresh()


# ── honest sources ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_adopts_a_roster_keeps_it_and_starts_from_it_without_network(
    federation: Federation, tmp_path: Path
) -> None:
    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=web(federation.files))
    with pytest.raises(RosterMissing):
        client.roster  # noqa: B018 - a property that raises
    with pytest.raises(RosterMissing):
        client.load_local(AT)
    roster = client.refresh(AT)
    assert roster == roster_from_repository(federation.repository, federation.root)
    assert statuses(client) == ["current"]
    again = RosterClient(tmp_path / "node", [], federation.root)
    assert again.load_local(AT) == roster
    assert again.load_local(AT + 30 * DAY) == roster
    with pytest.raises(RosterExpired):
        again.require_fresh(AT + 30 * DAY)


def test_a_node_serves_exactly_roster_files(federation: Federation, tmp_path: Path) -> None:
    client = RosterClient(tmp_path / "node", [federation.repository], federation.root)
    client.refresh(AT)
    for path, raw in federation.files().items():
        assert client.read(path) == raw
    for path in (
        "",
        ".",
        "metadata",
        "metadata/root.json",
        "../cache/timestamp.json",
        "/etc/passwd",
        "metadata/../metadata/timestamp.json",
        "metadata/timestamp.json\n",
        "metadata/0.root.json",
        "drafts/x/draft.json",
        "metadata/9.root.json",
    ):
        assert client.read(path) is None


def test_a_change_arrives_at_the_next_refresh_and_an_unchanged_roster_costs_two_requests(
    federation: Federation, tmp_path: Path
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/roster/")
        asked.append(path)
        raw = federation.files().get(path)
        return httpx.Response(404) if raw is None else reply(raw)

    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=fetching(answer))
    client.refresh(AT)
    asked.clear()
    first = client.refresh(AT)
    assert asked == ["metadata/2.root.json", "metadata/timestamp.json"]
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.finish("suspend")
    second = client.refresh(AT)
    assert (first.version, second.version) == (1, 2)
    assert second.states["JP"].status == "suspended"


def test_a_node_follows_root_rotations_it_missed(federation: Federation, tmp_path: Path) -> None:
    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=web(federation.files))
    client.refresh(AT)
    for number in (2, 3):
        rotate(federation, "EE", number)
    assert client.refresh(AT).version == 3
    assert client.verified is not None
    assert client.verified.root.version == 3
    assert RosterClient(tmp_path / "node", [], federation.root).load_local(AT).version == 3
    fresh = RosterClient(tmp_path / "other", [client.repository], federation.root)
    assert fresh.refresh(AT).version == 3


def test_a_lapsed_state_does_not_stop_the_refresh(federation: Federation, tmp_path: Path) -> None:
    ceremony.propose_renewal(
        federation.repository,
        "renew",
        ["root", "targets", "state-jp", "state-nl", "state-us"],
        at=AT + 170 * DAY,
    )
    federation.finish("renew", AT + 170 * DAY)
    later = AT + 181 * DAY
    federation.refresh(later)
    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=web(federation.files))
    assert client.refresh(later).key("EE", "EE/cp/1") is not None
    assert client.verified is not None
    assert client.verified.lapsed(later) == ("EE",)


# ── sources that fail ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unreachable_source_keeps_the_last_roster(federation: Federation, tmp_path: Path) -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    first = RosterClient(tmp_path / "node", [federation.repository], federation.root)
    roster = first.refresh(AT)
    second = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=fetching(down))
    assert second.refresh(AT) == roster
    assert statuses(second) == ["unreachable"]
    with pytest.raises(RosterMissing):
        RosterClient(tmp_path / "new", [BASE], federation.root, fetcher=fetching(down)).refresh(AT)


def test_one_good_source_among_bad_ones_is_enough(federation: Federation, tmp_path: Path) -> None:
    def garbage(request: httpx.Request) -> httpx.Response:
        return reply(b"<html>Sign in to the guest network</html>")

    sources: list[str | Path] = [BASE, federation.repository, tmp_path / "nothing"]
    client = RosterClient(tmp_path / "node", sources, federation.root, fetcher=fetching(garbage))
    assert client.refresh(AT).version == 1
    assert statuses(client) == ["invalid", "current", "unreachable"]


def test_an_expired_roster_fails_visibly_and_stays_readable(federation: Federation, tmp_path: Path) -> None:
    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=web(federation.files))
    roster = client.refresh(AT)
    with pytest.raises(RosterExpired, match="nothing new is confirmed"):
        client.refresh(AT + 7 * DAY)
    assert statuses(client) == ["expired"]
    assert client.roster == roster
    federation.refresh(AT + 7 * DAY)
    assert client.refresh(AT + 7 * DAY).expires == AT + 14 * DAY


def test_a_frozen_mirror_is_noticed_before_it_harms(federation: Federation, tmp_path: Path) -> None:
    frozen = federation.files()
    federation.refresh(AT + 5 * DAY)
    client = RosterClient(
        tmp_path / "node", [BASE, federation.repository], federation.root, fetcher=web(lambda: frozen)
    )
    assert client.refresh(AT + 8 * DAY).expires == AT + 12 * DAY
    assert statuses(client) == ["expired", "current"]


def test_a_rollback_is_refused(federation: Federation, tmp_path: Path) -> None:
    old = federation.files()
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.finish("suspend")
    current = federation.files()
    files = current
    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=web(lambda: files))
    assert client.refresh(AT).version == 2
    files = old
    assert client.refresh(AT).version == 2
    assert statuses(client) == ["older"]
    assert client.roster.states["JP"].status == "suspended"


def test_a_mix_of_old_and_new_files_is_refused(federation: Federation, tmp_path: Path) -> None:
    old = federation.files()
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.finish("suspend")
    new = federation.files()
    mixes = {
        "old snapshot under the new name": {
            **new,
            "metadata/2.snapshot.json": old["metadata/1.snapshot.json"],
        },
        "old targets under the new name": {**new, "metadata/2.targets.json": old["metadata/1.targets.json"]},
        "another State's document": {
            **new,
            **{p: new[q] for p in new for q in new if p.endswith(".ee.json") and q.endswith(".jp.json")},
        },
    }
    for name, files in mixes.items():
        client = RosterClient(tmp_path / name, [BASE], federation.root, fetcher=web(always(files)))
        with pytest.raises(RosterSourceFault):
            client.refresh(AT)
        assert client.verified is None


def test_a_roster_signed_by_fewer_than_the_threshold_is_refused(
    federation: Federation, tmp_path: Path
) -> None:
    attempts: list[list[Key]] = [federation.threshold()[:-1], [federation.online["EE"]], []]
    for keys in attempts:
        files = federation.files()
        resign(federation, files, "targets", lambda signed: None, keys)
        client = RosterClient(
            tmp_path / str(attempts.index(keys)), [BASE], federation.root, fetcher=web(always(files))
        )
        with pytest.raises(RosterSourceFault):
            client.refresh(AT)


def test_a_properly_signed_roster_that_drops_a_key_is_not_adopted(
    federation: Federation, tmp_path: Path
) -> None:
    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=web(lambda: files))
    files = federation.files()
    roster = client.refresh(AT)
    files = drop_key(federation)
    with pytest.raises(RosterSourceFault, match=r"EE/cp/1 is missing"):
        client.refresh(AT)
    assert client.roster == roster
    assert RosterClient(tmp_path / "node", [], federation.root).load_local(AT) == roster


def drop_key(federation: Federation) -> dict[str, bytes]:
    """What EE and the online keys could publish together, with tools of their own: version 2 without EE/cp/1."""
    files = federation.files()
    name = layout.state_target("EE")
    [path] = [p for p in files if p.endswith(".ee.json")]
    value = json.loads(files[path])
    value["keys"] = value["keys"][1:]
    raw = canonical(value)
    info = TargetFile.from_data(name, raw)
    files[layout.target_path(name, info.hashes["sha256"])] = raw

    def change(signed: Any) -> None:
        signed.targets = {name: info}

    resign(federation, files, "state-ee", change, [federation.authority["EE"]])
    snapshot: Metadata[Any] = Metadata.from_bytes(files["metadata/1.snapshot.json"])
    state: Metadata[Any] = Metadata.from_bytes(files["metadata/1.state-ee.json"])
    timestamp: Metadata[Any] = Metadata.from_bytes(files["metadata/timestamp.json"])
    state.signed.version = 2
    sign_with(state, [federation.authority["EE"]])
    files["metadata/2.state-ee.json"] = state.to_bytes()
    data = TargetFile.from_data("x", state.to_bytes())
    meta = snapshot.signed.meta["state-ee.json"]
    meta.version, meta.length, meta.hashes = 2, data.length, data.hashes
    snapshot.signed.version = timestamp.signed.version = timestamp.signed.snapshot_meta.version = 2
    for metadata, where in ((snapshot, "metadata/2.snapshot.json"), (timestamp, "metadata/timestamp.json")):
        sign_with(metadata, list(federation.online.values()))
        files[where] = metadata.to_bytes()
    return files


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(federation: Federation, tmp_path: Path, status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(status, headers={"location": "http://169.254.169.254/latest"})

    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=fetching(answer))
    with pytest.raises(RosterSourceFault):
        client.refresh(AT)
    assert set(asked) == {"node.example"}


def test_an_endless_answer_is_cut_off(federation: Federation, tmp_path: Path) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=endless())

    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=fetching(answer))
    with pytest.raises(RosterSourceFault, match="larger than it may be"):
        client.refresh(AT)
    assert sent < 4 << 20


def test_a_compressed_answer_is_taken_as_the_bytes_it_is(federation: Federation, tmp_path: Path) -> None:
    import gzip

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return reply(gzip.compress(bytes(10_000_000)), {"content-encoding": "gzip"})

    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=fetching(answer))
    with pytest.raises(RosterSourceFault):
        client.refresh(AT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"signed": 5}',
        b"[" * 15_000,
        b"\xff",
        b'{"signed":{"_type":"timestamp"},"signatures":[]}',
    ],
)
def test_garbage_instead_of_a_timestamp_is_an_outcome_and_no_crash(
    federation: Federation, tmp_path: Path, body: bytes
) -> None:
    files = {**federation.files(), "metadata/timestamp.json": body}
    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=web(lambda: files))
    with pytest.raises(RosterSourceFault):
        client.refresh(AT)
    assert client.verified is None


def test_a_server_error_or_a_broken_connection_counts_as_unreachable(
    federation: Federation, tmp_path: Path
) -> None:
    def broken() -> Iterator[bytes]:
        yield b"{"
        raise httpx.ReadError("gone")

    for number, response in enumerate(
        (lambda: httpx.Response(503), lambda: httpx.Response(200, content=broken()))
    ):
        client = RosterClient(
            tmp_path / str(number), [BASE], federation.root, fetcher=fetching(answering(response))
        )
        with pytest.raises(RosterMissing):
            client.refresh(AT)
        assert statuses(client) == ["unreachable"]


def test_a_connection_that_dies_halfway_is_mended_by_the_next_refresh(
    federation: Federation, tmp_path: Path
) -> None:
    """Each run gets one file further before the source goes away; no half state is ever adopted."""
    allowed = 0
    left = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal left
        if left == 0:
            raise httpx.ConnectError("gone")
        left -= 1
        raw = federation.files().get(request.url.path.removeprefix("/roster/"))
        return httpx.Response(404) if raw is None else reply(raw)

    client = RosterClient(tmp_path / "node", [BASE], federation.root, fetcher=fetching(answer))
    while client.verified is None:
        allowed += 1
        left = allowed
        try:
            client.refresh(AT)
        except RosterMissing:
            assert client.verified is None
        assert allowed < 30
    assert client.roster == roster_from_repository(federation.repository, federation.root)


def test_a_damaged_local_copy_is_reported_and_mended(federation: Federation, tmp_path: Path) -> None:
    client = RosterClient(tmp_path / "node", [federation.repository], federation.root)
    roster = client.refresh(AT)
    for path in client.repository.rglob("*.json"):
        path.write_bytes(path.read_bytes()[:-5])
    fresh = RosterClient(tmp_path / "node", [federation.repository], federation.root)
    with pytest.raises(RosterMissing, match="cannot be used"):
        fresh.load_local(AT)
    assert fresh.refresh(AT) == roster
    assert RosterClient(tmp_path / "node", [], federation.root).load_local(AT) == roster


def test_a_node_pinned_to_another_federation_adopts_nothing(federation: Federation, tmp_path: Path) -> None:
    other = Federation(tmp_path / "other", codes=("EE",), online_codes=("EE",))
    other.found()
    client = RosterClient(tmp_path / "node", [federation.repository], other.root)
    with pytest.raises(RosterSourceFault):
        client.refresh(AT)
    assert client.verified is None
