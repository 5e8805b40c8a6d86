"""`verbale screen`: is this party one that a notice speaks against, and how good is the answer.

A name is screened against this node's own database, as the operator: nothing leaves the machine and nothing is kept.
`compare` and `evaluate` need no node; they measure the matcher on labelled files.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from app.cli.common import (
    AsJson,
    SettingsFile,
    load_settings,
    open_database,
    print_json,
    print_table,
    progress,
    read_file,
)
from app.cli.screen_file import screen_file
from app.domain.errors import Malformed

MAX_FILE: Final = 2**30


class _NameFirst(TyperGroup):
    """`verbale screen Ivo Karelin` is `verbale screen name Ivo Karelin`: what is no subcommand is a name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - Typer's own types
        if args and args[0] not in self.commands:
            args = ["name", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_NameFirst,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Screen a party against denials: verbale screen NAME… ; and measure the matcher.",
    context_settings={"ignore_unknown_options": False},
)
app.command("file")(screen_file)


@app.command("name")
def name(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME…", help="One name; several where they are quoted, each with a space in it."
        ),
    ],
    schema: Annotated[
        str,
        typer.Option(
            help="Person, Company, Organization, PublicBody, Vessel, Airplane, or LegalEntity: any."
        ),
    ] = "LegalEntity",
    birth_date: Annotated[
        list[str] | None, typer.Option("--birth-date", help="Like 1970 or 1970-05-01.")
    ] = None,
    country: Annotated[list[str] | None, typer.Option(help="Alpha-2 code.")] = None,
    identifier: Annotated[
        list[str] | None, typer.Option(help="PROPERTY=VALUE, like imoNumber=9074729.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Hits to show.")] = 10,
    threshold: Annotated[float | None, typer.Option(help="From which score a hit is a match.")] = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="Withdrawn and expired notices too.")] = False,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Screen names against this node's notices. Exit code 0 whether or not there is a match."""
    from app.gate import operator  # noqa: PLC0415 - see `app.cli`
    from app.screening.find import DEFAULT_THRESHOLD, Screener  # noqa: PLC0415
    from app.screening.party import Query  # noqa: PLC0415

    given = names if len(names) > 1 and all(" " in n for n in names) else [" ".join(names)]
    properties: dict[str, list[str]] = {}
    if birth_date:
        properties["birthDate"] = birth_date
    if country:
        properties["country"] = country
    for one in identifier or ():
        key, equals, value = one.partition("=")
        if not equals:
            raise Malformed(f"--identifier {one[:60]!r} is not of the form PROPERTY=VALUE.")
        properties.setdefault(key, []).append(value)
    queries = [Query.parse({"schema": schema, "properties": {"name": [n], **properties}}) for n in given]
    settings = load_settings(settings_file)
    with open_database(settings) as database:
        screener = Screener(database)
        answers = [
            screener.screen(
                operator(settings.state),
                query,
                now=int(time.time() * 1000),
                limit=limit,
                threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
                include_inactive=inactive,
            )
            for query in queries
        ]
    if as_json:
        shown = [{"name": n, **answer.to_json()} for n, answer in zip(given, answers, strict=True)]
        print_json(shown[0] if len(shown) == 1 else shown)
        return
    for n, answer in zip(given, answers, strict=True):
        typer.echo(
            f"{n}: {answer.matches} match(es) at {answer.threshold:g}, {len(answer.hits)} hit(s) shown"
        )
        for hit in answer.hits:
            mark = "MATCH" if hit.is_match else "     "
            typer.echo(f"{mark} {hit.score:.2f}  {hit.caption} ({hit.schema}, {hit.role.replace('_', ' ')})")
            typer.echo(f"            {hit.issuer} {hit.status} notice {hit.id}: {hit.title}")
            for sentence in hit.explanation.sentences():
                typer.echo(f"            - {sentence}")


@app.command()
def compare(
    pairs: Annotated[Path, typer.Option("--pairs", help="CSV with the columns name1,name2,schema,is_match.")],
    as_json: AsJson = False,
) -> None:
    """Measure the score on labelled pairs of names: precision, recall and F1, at the best and at the shipped threshold."""
    from app.screening.measure import compare as measured  # noqa: PLC0415 - see `app.cli`
    from app.screening.measure import read_pairs  # noqa: PLC0415

    try:
        text = read_file(pairs, limit=MAX_FILE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{pairs} is not UTF-8 text.") from error
    result = measured(read_pairs(text.splitlines()))
    _show(result, as_json=as_json)


@app.command()
def evaluate(
    corpus: Annotated[Path, typer.Option("--corpus", help='Lines of {"id", "type", "names"}.')],
    queries: Annotated[
        Path, typer.Option("--queries", help='Lines of {"set", "type", "name", "truth_ids"}.')
    ],
    negatives: Annotated[Path, typer.Option("--negatives", help='Lines of {"type", "name"}: on no list.')],
    as_json: AsJson = False,
) -> None:
    """Measure the index and the scorer of a node on a labelled corpus: recall, alert rates, latency."""
    from app.screening import measure  # noqa: PLC0415 - see `app.cli`

    entries = measure.read_corpus(read_file(corpus, limit=MAX_FILE).splitlines())
    asked = measure.read_queries(read_file(queries, limit=MAX_FILE).splitlines())
    clean = measure.read_queries(read_file(negatives, limit=MAX_FILE).splitlines())
    with progress("Loading", len(entries)) as show:
        loaded = measure.Corpus(entries, show)
    with progress("Asking", len(asked) + len(clean)) as show:
        result = measure.evaluate(loaded, asked, clean, show)
    if as_json:
        print_json(result)
        return
    columns = ("queries", "recall_at_1", "recall_at_10", "recall_at_alert_1pct", "recall_at_alert_5pct")
    rows = [("all", *(result[c] for c in columns))]
    rows += [(set_, *(figures[c] for c in columns)) for set_, figures in result["sets"].items()]
    print_table(("set", *columns), rows)
    _show(
        {k: v for k, v in result.items() if k not in columns and not k.startswith("recall") and k != "sets"}
    )


def _show(result: dict[str, Any], *, as_json: bool = False) -> None:
    if as_json:
        print_json(result)
        return
    for key, value in result.items():
        typer.echo(f"{key:32} {value}")
