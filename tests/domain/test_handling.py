"""Label, audience and caveats: what agrees and what does not."""

from __future__ import annotations

import pytest

from app.domain.handling import Handling, InvalidHandling, Tlp


def test_labels_are_ordered_from_public_to_most_restricted() -> None:
    assert list(Tlp) == sorted(Tlp)
    assert [tlp.label for tlp in Tlp] == [
        "TLP:CLEAR",
        "TLP:GREEN",
        "TLP:AMBER",
        "TLP:AMBER+STRICT",
        "TLP:RED",
    ]
    assert [int(tlp) for tlp in Tlp] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tlp", Tlp)
def test_every_label_is_read_back(tlp: Tlp) -> None:
    assert Tlp.parse(tlp.label) is tlp


@pytest.mark.parametrize(
    "text", ["RED", "TLP: RED", "tlp:red", "TLP:WHITE", "TLP:AMBER_STRICT", "TLP:RED\n", "TLP:RED+STRICT", ""]
)
def test_nothing_but_the_exact_label_is_a_label(text: str) -> None:
    with pytest.raises(InvalidHandling) as refused:
        Tlp.parse(text)
    assert refused.value.field == "tlp"


@pytest.mark.parametrize("tlp", ["TLP:RED", "TLP:AMBER+STRICT"])
def test_the_two_strictest_labels_need_a_list(tlp: str) -> None:
    assert Handling.parse(tlp, ["EE", "NL"]).audience == {"EE", "NL"}
    with pytest.raises(InvalidHandling, match="needs a list"):
        Handling.parse(tlp, "ALL")


@pytest.mark.parametrize("tlp", ["TLP:AMBER", "TLP:GREEN"])
def test_amber_and_green_take_a_list_or_all(tlp: str) -> None:
    assert Handling.parse(tlp, "ALL").audience == "ALL"
    assert Handling.parse(tlp, ["JP"]).audience == {"JP"}


def test_clear_is_for_all() -> None:
    assert Handling.parse("TLP:CLEAR", "ALL").addresses("JP")
    with pytest.raises(InvalidHandling, match="public"):
        Handling.parse("TLP:CLEAR", ["EE"])


def test_an_empty_list_is_nobody_and_is_not_issued() -> None:
    nobody = Handling.parse("TLP:RED", [])
    assert not nobody.addresses("EE")
    with pytest.raises(InvalidHandling, match="nobody could read"):
        nobody.check_for_issue()


@pytest.mark.parametrize("audience", [["RU"], ["ee"], ["ZZ"], ["EE", "EE"], "EE", ["ALL"]])
def test_the_audience_is_a_list_of_different_subscribing_states(audience: str | list[str]) -> None:
    with pytest.raises(InvalidHandling) as refused:
        Handling.parse("TLP:RED", audience)
    assert refused.value.field == "audience"


@pytest.mark.parametrize("caveats", [["NOFORN"], ["orcon"], ["REGIME:EU"], ["ORCON", "ORCON"]])
def test_caveats_come_from_the_vocabulary_once_each(caveats: list[str]) -> None:
    with pytest.raises(InvalidHandling) as refused:
        Handling.parse("TLP:GREEN", "ALL", caveats)
    assert refused.value.field == "caveats"


def test_handling_is_written_as_it_was_read() -> None:
    wire = Handling.parse("TLP:RED", ["NL", "EE"], ["ORCON", "REGIME:WA"]).wire()
    assert wire == {"tlp": "TLP:RED", "audience": ["EE", "NL"], "caveats": ["ORCON", "REGIME:WA"]}
