"""What a federation costs as it grows: messages, bytes and storage, for each State and for each notice.

Some States post, all mirror, witness and judge; nothing goes wrong. So it is the cost of the honest path alone, counted on
the wires and on the disks of the nodes we ship, without HTTP's own framing.
"""

from __future__ import annotations

import json
from typing import Final

from app.simulation.world import World

POSTERS: Final = 1
ROUNDS: Final = 2
NOTICES_A_ROUND: Final = 5


def measure(states: int, *, as_json: bool = False) -> str:
    """Run it; a table, or JSON."""
    world = World(1, states, 0, faultless=True)
    try:
        world.begin()
        empty = _stored(world)
        notices = 0
        for _ in range(ROUNDS):
            for code in world.plan.posters[:POSTERS]:
                site = world.sites[code]
                for _ in range(NOTICES_A_ROUND):
                    world.do(site, lambda site=site: world.post(site))  # type: ignore[misc]  # bound at once
                    notices += 1
            world.schedule.run()
            for code in world.plan.posters[:POSTERS]:
                site = world.sites[code]
                world.do(site, site.publish)
                world.schedule.run()
                for other in world.codes:
                    if other != code:
                        world.do(site, lambda site=site, other=other: site.offer(other))  # type: ignore[misc]
            world.schedule.run()
            for site in world.sites.values():
                for code in world.plan.posters[:POSTERS]:
                    if code != site.state:
                        world.do(site, lambda s=site, o=world.sites[code].origin: s.judge(o))  # type: ignore[misc]
            world.schedule.run()
        return _report(world, notices, _stored(world) - empty, as_json=as_json)
    finally:
        world.close()


def _stored(world: World) -> int:
    return sum(
        page_count * page_size
        for site in world.sites.values()
        for ((page_count,),) in [site.disk.rows("PRAGMA page_count")]
        for ((page_size,),) in [site.disk.rows("PRAGMA page_size")]
    )


def _report(world: World, notices: int, stored: int, *, as_json: bool) -> str:
    traffic, states = world.network.traffic, len(world.codes)
    figures = {
        "states": states,
        "notices": notices,
        "messages": traffic.messages,
        "bytes": traffic.bytes,
        "stored": stored,
        "messages_per_state_and_notice": round(traffic.messages / states / notices, 2),
        "bytes_per_state_and_notice": round(traffic.bytes / states / notices),
        "stored_per_state_and_notice": round(stored / states / notices),
    }
    if as_json:
        return json.dumps(figures)
    lines = [f"| {name.replace('_', ' ')} | {value:,} |" for name, value in figures.items()]
    kinds = [
        f"| {kind} | {count:,} | {size:,} |"
        for kind, (count, size) in sorted(traffic.by_kind.items(), key=lambda item: -item[1][1])
    ]
    return "\n".join(
        [
            "| what | number |",
            "| --- | --- |",
            *lines,
            "",
            "| asked for | messages | bytes |",
            "| --- | --- | --- |",
            *kinds,
        ]
    )
