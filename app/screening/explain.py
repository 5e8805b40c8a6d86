"""Why a score is what it is, in words for a lawyer and in JSON for a program, from the same facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.screening.features import combined, name_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.screening.features import Feature
    from app.screening.score import Agreement, Met

MODEL = "verbale-3"
"""Names the rules and weights; changed with them, so that a kept answer says what it was made by."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that a score was made of.

    Attributes:
        query_name, notice_name: the two spellings that were compared; None if only an identifier was.
        name_score: what the names alone say, 0 to 1.
    """

    score: float
    query_name: str | None
    notice_name: str | None
    agreement: Agreement | None
    name_score: float
    features: tuple[Feature, ...]

    def without(self, feature: str) -> float:
        """The score if nothing were known of one feature."""
        if not any(f.odds for f in self.features if f.name == feature):
            return self.score
        return combined(self.name_score, [f for f in self.features if f.name != feature])

    def to_json(self) -> dict[str, Any]:
        """A stable shape, see docs/screening.md."""
        names: dict[str, Any] | None = None
        if self.agreement is not None:
            ours, theirs = self.agreement.query.tokens, self.agreement.notice.tokens
            names = {
                "query": self.query_name,
                "notice": self.notice_name,
                "score": round(self.name_score, 4),
                "met": [
                    {
                        "query": [ours[i].text for i in met.query],
                        "notice": [theirs[j].text for j in met.notice],
                        "how": met.kind,
                        "similarity": round(met.similarity, 3),
                        "edits": met.edits,
                        "weight": round(sum(ours[i].weight for i in met.query), 3),
                    }
                    for met in self.agreement.met
                ],
                "only_in_query": [ours[i].text for i in self.agreement.query_left],
                "only_in_notice": [theirs[j].text for j in self.agreement.notice_left],
                "legal_forms": {
                    "query": sorted(self.agreement.query.forms),
                    "notice": sorted(self.agreement.notice.forms),
                },
            }
        return {
            "model": MODEL,
            "score": round(self.score, 4),
            "sentences": list(self.sentences()),
            "names": names,
            "features": [
                {
                    "name": f.name,
                    "state": f.state,
                    "detail": f.detail,
                    "log_odds": round(f.odds, 3),
                    "score_without": round(self.without(f.name), 4),
                }
                for f in self.features
            ],
        }

    def parts(self) -> dict[str, Any]:
        """What the score is made of, by name: `{"score", "detail"}` each, of the names with "query" and "candidate" too.

        Of a feature, "score" is by how much it moved the whole.
        """
        found: dict[str, Any] = {
            "name": {
                "score": round(self.name_score, 4),
                "detail": " ".join(self.sentences()),
                "query": self.query_name,
                "candidate": self.notice_name,
            }
        }
        for feature in self.features:
            if feature.odds:
                moved = round(self.score - self.without(feature.name), 4)
                found[feature.name] = {"score": moved, "detail": feature.detail}
        return found

    def sentences(self) -> Sequence[str]:
        """The reasons in plain words, the weightiest first."""
        said: list[str] = []
        if self.agreement is None:
            said.append("No name is alike; the party was found by an identifier.")
        else:
            said.append(f"“{self.query_name}” was compared with “{self.notice_name}”.")
            said += [_said(self.agreement, met) for met in self.agreement.met]
            ours, theirs = self.agreement.query.tokens, self.agreement.notice.tokens
            if self.agreement.query_left:
                said.append(
                    f"Only the query says: {' '.join(ours[i].text for i in self.agreement.query_left)}."
                )
            if self.agreement.notice_left:
                said.append(
                    f"Only the notice says: {' '.join(theirs[j].text for j in self.agreement.notice_left)}."
                )
        words = {"agrees": "agrees", "contradicts": "contradicts"}
        for f in sorted(self.features, key=lambda f: -abs(f.odds)):
            if f.state in words and f.odds:
                label = f.name.replace("_", " ").capitalize()
                said.append(
                    f"{label} {words[f.state]} ({f.detail}); without it the score would be {self.without(f.name):.2f}."
                )
        missing = [f.name.replace("_", " ") for f in self.features if f.state == "absent"]
        if missing:
            said.append(f"Not known on one side or both: {', '.join(missing)}.")
        return said


_HOW = {
    "equal": "the same word",
    "transliteration": "the same in Latin letters",
    "same name": "forms of one name",
    "spelling": "spelled alike",
    "consonants": "the same consonants",
    "initial": "an initial",
    "abbreviation": "an abbreviation",
    "same word": "the same word in another form or language",
    "joined": "written together or apart",
    "acronym": "first letters of the other",
    "blend": "made of beginnings of the other's words",
}


def _said(agreement: Agreement, met: Met) -> str:
    ours = " ".join(agreement.query.tokens[i].text for i in met.query)
    theirs = " ".join(agreement.notice.tokens[j].text for j in met.notice)
    how = _HOW[met.kind]
    if met.edits:
        how += f", {met.edits} letter{'s' if met.edits > 1 else ''} differ{'' if met.edits > 1 else 's'}"
    return f"“{ours}” met “{theirs}”: {how}."


def explain(
    agreement: Agreement | None,
    query_name: str | None,
    notice_name: str | None,
    found: tuple[Feature, ...],
    *,
    names: float | None = None,
) -> Explanation:
    """Score and reasons from an agreement of names and the features beside them.

    Args:
        names: `name_score` of the agreement, where it is known.
    """
    if names is None:
        names = name_score(agreement) if agreement is not None else 0.0
    return Explanation(combined(names, found), query_name, notice_name, agreement, names, found)
