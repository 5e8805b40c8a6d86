"""States and territories: who may be named in a notice, and who may issue or receive one.

Guarantees that a code is known: ISO 3166-1 alpha-2 (249 entries) and XK. The Subscribing States are read once, at import,
from the packaged `app/data/vocabulary/subscribing_states.csv`: the one input besides its arguments this module has.
Whether a Subscribing State is a member today, suspended or gone is a dated fact of the roster and left to it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from app.domain.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping


class UnknownCountry(Malformed):
    """A code that is neither in ISO 3166-1 alpha-2 nor XK."""

    code = "unknown-country"


ISO_3166_1 = frozenset(
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC "
    "CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD "
    "GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH "
    "KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW "
    "MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC "
    "SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY "
    "UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW".split()
)

COUNTRIES = ISO_3166_1 | {"XK"}
"""XK (Kosovo, a Subscribing State) is user-assigned in ISO 3166-1 and so not among its 249 entries."""


@dataclass(frozen=True, slots=True)
class SubscribingState:
    """One State that subscribed to the Code of Conduct, as listed in the packaged table."""

    code: str  # alpha-2, upper case
    alpha3: str
    name: str
    official_name: str
    eu_member: bool
    regimes: tuple[str, ...]  # of WA, NSG, AG, MTCR
    authority: str | None  # the export-control authority, where one was found


def _load() -> Mapping[str, SubscribingState]:
    text = files("app.data.vocabulary").joinpath("subscribing_states.csv").read_text(encoding="utf-8")
    return {
        row["alpha2"]: SubscribingState(
            code=row["alpha2"],
            alpha3=row["alpha3"],
            name=row["short_name"],
            official_name=row["official_name"],
            eu_member=row["eu_member"] == "1",
            regimes=tuple(row["regimes"].split()),
            authority=None if row["authority_source"] == "not found" else row["export_control_authority"],
        )
        for row in csv.DictReader(text.splitlines())
    }


STATES: Mapping[str, SubscribingState] = _load()
"""Alpha-2 -> State, in the order of the table. A State that joins later needs a row here as well as in the roster."""


def country(code: str) -> str:
    """The upper-case alpha-2 code of a country written in either case.

    Raises:
        UnknownCountry: neither in ISO 3166-1 nor XK.
    """
    upper = code.upper()
    if upper not in COUNTRIES or not code.isascii():  # beyond ASCII, capitals of other letters fall on ours
        raise UnknownCountry(
            f"{code[:20]!r} is not a country code. Use ISO 3166-1 alpha-2, for instance EE; the United Kingdom is GB, Kosovo XK."
        )
    return upper
