"""The Subscribing States a federation begins with, from the packaged table.

Guarantees nothing about today: the table says who subscribed and when; who is a member now, the roster says.
"""

from __future__ import annotations

import csv
import re
from importlib.resources import files

from app.roster.documents import Membership


def subscribing_states() -> tuple[Membership, ...]:
    """Every State of the table, by code, with the day it subscribed, or the year where the day was not published."""
    text = files("app.data.vocabulary").joinpath("subscribing_states.csv").read_text(encoding="utf-8")
    states = []
    for row in csv.DictReader(text.splitlines()):
        said = row["subscribed_on"]
        joined = said if re.fullmatch(r"\d{4}-\d{2}-\d{2}", said) else said[:4]
        states.append(Membership(row["alpha2"], row["short_name"], joined))
    return tuple(sorted(states, key=lambda state: state.code))
