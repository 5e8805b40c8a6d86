"""Drill `twin`: a node runs twice. Its folder was copied, keys and all, and somebody starts the copy beside it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING, Any, Final

from app.demo import fiction
from app.demo.api import Api
from app.demo.processes import NodeProcess
from app.demo.scenario import free_ports
from app.drill.field import QUICK
from app.settings import load, to_toml

if TYPE_CHECKING:
    from app.drill.field import Field

DOUBLED: Final = "EE"
TWIN: Final = "EE's copy"
OTHERS: Final = ("FI", "JP", "NL", "US")
LEASE_S: Final = QUICK["lease_s"]


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    with step("Five States found a federation; Estonia's machine is copied, keys and all, and goes on"):
        field.found()
        field.start()
        field.post(DOUBLED, "Before the copy")
        field.settle(DOUBLED)
        field.stop(DOUBLED)
        _copy(field)
        field.start(DOUBLED)
    with step("Somebody starts the copy, at another address, while the node itself has nothing new to say"):
        _start_twin(field, port=free_ports(1)[0])
        field.wait("the copy knows that it is one", lambda: "runs twice" in _refusal(field, TWIN))
        detail = _refusal(field, TWIN)
        report.quote(f"the copy answers a post with 503: {detail}")
        field.holds(
            "the copy takes nothing and says why, in its answer and in /v1/federation",
            _own(field, TWIN)["error"]["code"] == "log-held",
            f"the copy says {_own(field, TWIN)['error']}",
        )
        field.post(DOUBLED, "By the node itself")
        field.settle(DOUBLED, readers=OTHERS)
        field.holds(
            "the node itself goes on as if nothing were: all have its next notice",
            all(field.titles(s, DOUBLED)[0] == "By the node itself" for s in OTHERS),
            "the node itself was disturbed",
        )
    with step(f"The node itself dies; the copy is started in its place, and follows after {LEASE_S} seconds"):
        field.kill(DOUBLED)
        field.stop(TWIN)
        _start_twin(field, port=field.federation.node(DOUBLED).member.port)
        field.wait("the copy takes notices", field.apis[TWIN].alive)
        field.holds(
            "the copy has fetched what the node had signed since",
            field.titles(TWIN, DOUBLED) == ["By the node itself", "Before the copy"],
            f"the copy shows {field.titles(TWIN, DOUBLED)}",
        )
        line = field.author(DOUBLED).sign({**fiction.practice(DOUBLED), "title": "By the copy"})
        posted = field.apis[TWIN].post_notice(line)
        report.quote(f"the copy goes on: leaf {posted.index}")
        field.wait(
            "all have what the copy says",
            lambda: all(field.titles(s, DOUBLED)[0] == "By the copy" for s in OTHERS),
        )
    with step("The node itself is repaired and started in its place again"):
        field.kill(TWIN)
        field.start(DOUBLED)
        field.post(DOUBLED, "By the node itself, again")
        field.settle(DOUBLED)
        titles = ["By the node itself, again", "By the copy", "By the node itself", "Before the copy"]
        field.holds(
            "every node shows one history, with the notices of both",
            all(field.titles(s, DOUBLED) == titles for s in (*OTHERS, DOUBLED)),
            f"{DOUBLED} shows {field.titles(DOUBLED, DOUBLED)}",
        )
        records = [one for s in (*OTHERS, DOUBLED) for one in field.apis[s].json("/evidence")["items"]]
        field.holds(
            "no second root was signed for any size: no log is frozen and nothing convicts anybody",
            all(field.log(s, DOUBLED)["status"] == "ok" for s in OTHERS)
            and not any(one["convicts"] for one in records),
            "a log was frozen, or evidence was found",
        )


def _copy(field: Field) -> None:
    """Copy the stopped node's folder. Its address in the roster stays the node's own."""
    shutil.copytree(field.federation.node(DOUBLED).settings.data_dir, field.directory / "copy")


def _start_twin(field: Field, *, port: int) -> None:
    """Start a process on the copy that listens on a port."""
    file = field.directory / "copy" / "node.toml"
    values = {"listen_port": port, "data_dir": "."}
    kept = [line for line in file.read_text("utf-8").splitlines() if line.split(" =")[0] not in values]
    file.write_text("\n".join([to_toml(values), *kept]) + "\n", "utf-8")
    node = field.federation.node(DOUBLED)
    settings = load(file, environment={})
    twin = dataclasses.replace(node, member=dataclasses.replace(node.member, port=port), settings=settings)
    if TWIN in field.apis:
        field.apis[TWIN].close()
    field.apis[TWIN] = Api(twin, field.tokens[DOUBLED])
    field.nodes[TWIN] = NodeProcess(twin)
    field.wait("the copy answers", field.apis[TWIN].answers)


def _refusal(field: Field, which: str) -> str:
    """What a node says that does not take a notice now."""
    line = field.author(DOUBLED).sign({**fiction.practice(DOUBLED), "title": "Too many"})
    answer = field.apis[which].post_raw("/v1/notices", line, expect=503)
    return str(json.loads(answer)["detail"])


def _own(field: Field, which: str) -> dict[str, Any]:
    return field.log(which, DOUBLED)
