"""Drill `stolen-contact-key`: somebody speaks in a State's name with its contact point's key, while another State is away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from app.demo import fiction
from app.demo.author import Author
from app.domain.encoding import b64u_encode
from app.drill.ceremonies import adopt, cards, finish, new_key
from app.roster import ceremony

if TYPE_CHECKING:
    from pathlib import Path

    from app.demo.api import Posted
    from app.drill.field import Field

ROBBED: Final = "EE"
AWAY: Final = "JP"
TRUE, FORGED = "Said by the office", "Forged by the thief"


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    with step("Five States found a federation; Estonia's office issues a notice that everybody has"):
        field.found()
        field.start()
        true = field.post(ROBBED, TRUE)
        field.settle()
        field.stop(AWAY)
        report.quote(f"{AWAY} is cut off from here on")
    with step("A thief has Estonia's contact-point key: a forged notice, and the true one withdrawn"):
        vouched_until = int(time.time())
        first = field.post(ROBBED, FORGED).index
        thief = field.author(ROBBED)
        second_act = field.apis[ROBBED].post_notice(thief.sign(_withdrawal(true), ref=true.hash)).index
        report.quote(f"The thief withdraws “{TRUE}”")
        others = [s for s in field.nodes if s != ROBBED]
        field.settle(ROBBED)
        field.wait(
            "the forgery is believed everywhere",
            lambda: all(field.titles(s, ROBBED) == [FORGED] for s in others),
        )
    with step(
        f"Estonia revokes the key from leaf {first} on and lists another: its authority key alone signs"
    ):
        repository, keys = field.federation.repository, field.directory / "new-keys"
        second = new_key(keys, ROBBED, "notices", 2)
        now = int(time.time())
        ceremony.propose_revocation(
            repository, "stolen", "EE/cp/1", at_index=first, suspect_from=vouched_until, at=now
        )
        ceremony.propose_rotation(repository, "stolen", cards(second), at=now, replaces="EE/cp/1")
        version = finish(field, "stolen", authority=ROBBED)
        adopt(field, version)
    with step("What the thief did is undone, everywhere, and what the office said before stands"):
        running = tuple(field.nodes)
        field.wait(
            "every State shows the true notice and not the forged one",
            lambda: all(_shown(field, s) == {TRUE: "active"} for s in running),
        )
        field.holds(
            "the forged notice is gone and the true one is active again at every State, Estonia included",
            all(_shown(field, s) == {TRUE: "active"} for s in running),
            "a State still believes the thief",
        )
        flagged = {s: _faults(field, s) for s in running}
        for state, found in flagged.items():
            report.quote(f"{state}: {found}")
        field.holds(
            f"leaves {first} and {second_act} are flagged by every State in the same way, and stay in the log",
            all(
                found == {first: "key-not-active", second_act: "key-not-active"} for found in flagged.values()
            ),
            "States judge the thief's leaves differently",
        )
        refused = _refused(field, thief)
        report.quote(f"{ROBBED}'s node answers the thief: {refused}")
        field.holds(
            "the stolen key signs nothing new, whatever time it claims",
            refused == "key-not-active",
            f"the node answered {refused}",
        )
    with step("Life goes on under the new key, and a third one after it"):
        _say(field, second, "EE/cp/2", "Under the second key")
        third = new_key(keys, ROBBED, "notices", 3)
        ceremony.propose_rotation(repository, "again", cards(third), at=int(time.time()))
        adopt(field, finish(field, "again", authority=ROBBED))
        _say(field, third, "EE/cp/3", "Under the third key")
        field.settle(ROBBED)
    with step(f"{AWAY} comes back: two rotations, a revocation and a theft later"):
        field.start(AWAY)
        field.settle(ROBBED)
        expected = {TRUE: "active", "Under the second key": "active", "Under the third key": "active"}
        field.wait(f"{AWAY} shows what the others show", lambda: _shown(field, AWAY) == expected)
        field.holds(
            f"{AWAY} agrees with all others, leaf by leaf, about what counts",
            all(_shown(field, s) == expected for s in field.nodes)
            and len({str(_faults(field, s)) for s in field.nodes}) == 1,
            "the State that was away judges otherwise",
        )


def _withdrawal(of: Posted) -> dict[str, Any]:
    return fiction.withdrawal(ROBBED, of.id, b64u_encode(of.hash))


def _say(field: Field, key: Path, kid: str, title: str) -> None:
    author = Author(ROBBED, field.origin(ROBBED), kid, _signer(key))
    main = {**fiction.practice(ROBBED), "title": title}
    field.apis[ROBBED].post_notice(author.sign(main))
    field.report.quote(f"{ROBBED} says “{title}”, signed with {kid}")


def _signer(key: Path) -> Any:  # noqa: ANN401 - a signer
    from app.keyfiles import load_private  # noqa: PLC0415 - only when it is needed

    return load_private(key)


def _refused(field: Field, thief: Author) -> str:
    """The problem with which Estonia's own node answers another forged notice."""
    from app.demo.errors import DemoFailed  # noqa: PLC0415

    try:
        field.apis[ROBBED].post_notice(thief.sign({**fiction.practice(ROBBED), "title": "Once more"}))
    except DemoFailed as refusal:
        return "key-not-active" if "key-not-active" in str(refusal) else str(refusal)
    return "201"


def _shown(field: Field, reader: str) -> dict[str, str]:
    items = field.apis[reader].json("/v1/notices", issuer=ROBBED, status="all", limit=100)["items"]
    return {item["title"]: item["status"] for item in items}


def _faults(field: Field, reader: str) -> dict[int, str]:
    items = field.apis[reader].json("/v1/federation/faults", state=ROBBED, limit=100)["items"]
    return {item["index"]: item["code"] for item in items}
