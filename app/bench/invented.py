"""Invented parties by the hundred thousand, and queries about them: the same in every run.

Guarantees that nobody bears these names: they are put together from syllables. Guarantees a shape like that of real lists:
three in five persons, a name and a half each, words as unequal in frequency (the commonest in one entry of sixty, most of
them in one alone), several scripts. How many entities there are changes nothing of the first ones.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_LATIN: Final = (
    "ka ri mo ta le su vo dra he mi or pa qu ben to ya ze lu fa shi go an be cu do es fre gi ha iv jo ke la nu os pi ro sa te "
    "ul va we xa yo zu kri sto bal mer nik pol tar vin zor ash bru cal den".split()
)
_NATIVE: Final = (
    # Syllable by syllable what _LATIN says, as a transliteration would have it.
    "ка ри мо та ле су во дра хе ми ор па ку бен то я зе лу фа ши го ан бе чу до ес фре ги ха ив джо ке ла ну ос пи ро са те "
    "ул ва ве кса йо зу кри сто бал мер ник пол тар вин зор аш бру кал ден".split(),
    "كا ري مو تا لي سو فو درا هي مي اور با كو بن تو يا زي لو فا شي غو ان بي تشو دو اس فري غي ها اف جو كي لا نو اوس بي رو سا تي "
    "ول فا وي كسا يو زو كري ستو بال مر نيك بول تار فين زور اش برو كال دن".split(),
    "κα ρι μο τα λε σου βο ντρα χε μι ορ πα κου μπεν το για ζε λου φα σι γκο αν μπε τσου ντο ες φρε γκι χα ιβ τζο κε λα νου ος "
    "πι ρο σα τε ουλ βα γουε ξα γιο ζου κρι στο μπαλ μερ νικ πολ ταρ βιν ζορ ας μπρου καλ ντεν".split(),
)
_SECTORS: Final = (
    "Trading Shipping Electronics Systems Security Holding Industries Optics Signals Logistics Energy Export Import Marine "
    "Technologies International Research Institute Group General Petrochemical Aviation Services Engineering".split()
)
_FORMS: Final = "Ltd LLC GmbH SA PJSC OOO FZE Inc Limited Company".split()
_COUNTRIES: Final = "ZM FJ PE LA NP TG UY BT".split()

GIVEN, SURNAMES, OWN_WORDS = 5_000, 300_000, 500_000
"""Different words that given names, family names and organisations are drawn from."""


@lru_cache(maxsize=500_000)
def _syllables(kind: str, rank: int) -> tuple[int, ...]:
    """The syllables of the word of a rank, the most frequent first."""
    chosen = random.Random(f"{kind}{rank}")  # noqa: S311 - invented names
    return tuple(chosen.randrange(len(_LATIN)) for _ in range(chosen.choice((2, 3, 3, 4))))


def _rank(random_: random.Random, words: int, flat: int) -> int:
    """A rank, log-uniform: a few words are common and most are rare. `flat` says how common the first may be."""
    return int(flat * (words / flat) ** random_.random()) - flat


def _written(word: tuple[int, ...], script: int | None) -> str:
    table = _LATIN if script is None else _NATIVE[script]
    return "".join(table[s] for s in word).capitalize()


def entity(number: int) -> dict[str, Any]:
    """The party of a number: `schema`, `names` (the first is the caption), `properties`."""
    random_ = random.Random(number)  # noqa: S311 - invented names
    kind = random_.random()
    country = [random_.choice(_COUNTRIES)]
    if kind < 0.6:
        words = [_syllables("g", _rank(random_, GIVEN, 10)) for _ in range(random_.choice((1, 1, 2)))]
        words.append(_syllables("s", _rank(random_, SURNAMES, 50)))
        names = [" ".join(_written(w, None) for w in words)]
        if random_.random() < 0.3:
            names.append(" ".join(_written(w, random_.randrange(len(_NATIVE))) for w in words))
        if random_.random() < 0.2:
            names.append(misspelt(names[0], random_))
        properties = {"nationality": country, "birthDate": [str(random_.randrange(1940, 2000))]}
        return {"schema": "Person", "names": list(dict.fromkeys(names)), "properties": properties}
    words = [_syllables("o", _rank(random_, OWN_WORDS, 50)) for _ in range(random_.choice((1, 1, 2)))]
    own = " ".join(_written(w, None) for w in words)
    if kind < 0.93:
        sector = random_.choice(_SECTORS)
        names = [f"{own} {sector} {random_.choice(_FORMS)}"]
        if random_.random() < 0.25:
            names.append(f"{own} {random_.choice(_SECTORS)}")
        if random_.random() < 0.2:
            native = " ".join(_written(w, random_.randrange(len(_NATIVE))) for w in words)
            names.append(f"{native} {sector}")
        numbers = {"registrationNumber": [f"{random_.randrange(10**9):09}"]} if random_.random() < 0.5 else {}
        return {"schema": "Company", "names": names, "properties": {"jurisdiction": country, **numbers}}
    properties = {"flag": country, "imoNumber": [f"{random_.randrange(10**6, 10**7)}"]}
    return {
        "schema": "Vessel",
        "names": [f"{own} {random_.choice(('Star', 'Pride', 'Spirit'))}"],
        "properties": properties,
    }


def misspelt(name: str, random_: random.Random) -> str:
    """The name with one letter exchanged, as an application has it."""
    place = random_.randrange(len(name))
    return name[:place] + random_.choice("abcdefghijklmnopqrstuvwxyz") + name[place + 1 :]


def queries(count: int, entities: int) -> Iterator[dict[str, Any]]:
    """Parties to be screened against the first `entities`, as the API takes them; one in five is on no list.

    A third of the others are as listed, a third misspelt; the rest in another order, short of a word, or in the script of
    an alias.
    """
    random_ = random.Random(11)  # noqa: S311 - invented names
    for number in range(count):
        listed = random_.random() < 0.8
        party = entity(random_.randrange(entities) if listed else 10**9 + number)
        how = random_.random()
        name = random_.choice(party["names"]) if how > 0.9 else party["names"][0]
        words = name.split()
        if 0.33 <= how < 0.66:
            name = misspelt(name, random_)
        elif 0.66 <= how < 0.8:
            name = " ".join([words[-1], *words[:-1]])
        elif 0.8 <= how <= 0.9 and len(words) > 2:
            name = " ".join([words[0], *words[2:]])
        yield {"schema": party["schema"], "properties": {"name": [name]}}
