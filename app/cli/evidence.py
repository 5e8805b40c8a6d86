"""`verbale evidence`: what proves that a log or a witness contradicted itself, and checking it with no node at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import (
    REFUSED,
    AsJson,
    NodeUrl,
    SettingsFile,
    load_settings,
    print_json,
    print_table,
    read_file,
)
from app.domain.errors import Malformed

if TYPE_CHECKING:
    from app.tlog.cosignature import CosignerKey
    from app.tlog.evidence import Evidence, Verdict
    from app.tlog.note import VerifierKey

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Evidence against logs and witnesses: look at it, check it offline.",
)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The record, - for standard input.")],
    log_key: Annotated[
        list[str] | None,
        typer.Option("--log-key", metavar="VKEY", help="Verifier key of the log; may be repeated."),
    ] = None,
    witness_key: Annotated[
        list[str] | None,
        typer.Option(
            "--witness-key", metavar="VKEY", help="Verifier key of the accused witness; may be repeated."
        ),
    ] = None,
    roster_root: Annotated[
        Path | None,
        typer.Option(
            "--roster-root", help="Instead of keys: the roster's root, obtained out of band, with --roster."
        ),
    ] = None,
    roster: Annotated[
        Path | None,
        typer.Option("--roster", help="Folder of a roster, for instance the one in a node's folder."),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option("--id", help="The id the record must have; by default the file's name, if it is an id."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a record offline. Exit code 0: it proves what it says; 1: refused, with the step that failed."""
    from app.tlog.evidence import EvidenceRefused, is_record_id  # noqa: PLC0415 - see `app.cli`

    raw = read_file(file)
    wanted = record or (file.stem if is_record_id(file.stem) else None)
    try:
        evidence = _read(raw, wanted)
        verdict = _verdict(evidence, log_key or (), witness_key or (), roster_root, roster)
    except EvidenceRefused as refusal:
        if as_json:
            error = {"code": refusal.code, "detail": str(refusal)}
            print_json({"proven": False, "failed": refusal.step, "error": error})
            raise typer.Exit(REFUSED) from refusal
        raise
    described = _describe(verdict)
    if as_json:
        print_json({"proven": True, **described})
        return
    print("Proven:" if verdict.convicts else "Signed by the log, and convicts nobody:")
    print(f"  {verdict.says}")
    print(f"  accused     {verdict.accused}")
    if verdict.older is not None:
        print(f"  older       size {verdict.older.size}, root {verdict.older.root.hex()}")
    print(f"  newer       size {verdict.newer.size}, root {verdict.newer.root.hex()}")
    for sighting in described["seen"]:
        print(f"  seen        {sighting['at']} by {sighting['by']} at {sighting['where']} (unproven)")
    print(f"  id          {described['id']}")


def _read(raw: bytes, wanted: str | None) -> Evidence:
    from app.tlog.evidence import Evidence, EvidenceRefused, record_id  # noqa: PLC0415 - see `app.cli`

    if wanted is not None and record_id(raw) != wanted:
        raise EvidenceRefused("id", f"These bytes are the record {record_id(raw)}, not {wanted}.")
    return Evidence.parse(raw)


def _verdict(
    evidence: Evidence,
    log_keys: list[str] | tuple[()],
    witness_keys: list[str] | tuple[()],
    root: Path | None,
    folder: Path | None,
) -> Verdict:
    from app.tlog.cosignature import CosignerKey  # noqa: PLC0415 - see `app.cli`
    from app.tlog.evidence import verify as verify_evidence  # noqa: PLC0415
    from app.tlog.note import VerifierKey  # noqa: PLC0415

    if (root is None) != (folder is None) or (root is None) == (not log_keys):
        raise Malformed("Name the log's key with --log-key, or --roster-root together with --roster.")
    if root is not None and folder is not None:
        keys, cosigners = _listed(evidence.origin, root, folder)
    else:
        keys = [VerifierKey.parse(text) for text in log_keys]
        cosigners = [CosignerKey.parse(text) for text in witness_keys]
    return verify_evidence(evidence, keys, cosigners)


def _listed(origin: str, root: Path, folder: Path) -> tuple[list[VerifierKey], list[CosignerKey]]:
    """Every log key of the origin's State and every witness key that a verified roster lists, past ones included."""
    from app.roster import export_bundle, roster_from_bundle  # noqa: PLC0415 - see `app.cli`
    from app.tlog.cosignature import CosignerKey  # noqa: PLC0415
    from app.tlog.note import VerifierKey  # noqa: PLC0415

    if (folder / "repository").is_dir():  # the roster in a node's folder
        folder /= "repository"
    listed = roster_from_bundle(export_bundle(folder), read_file(root))
    state = listed.state_of_origin(origin)
    if state is None:
        raise Malformed(f"That roster lists no log {origin}.")
    keys = [VerifierKey(origin, k.key) for k in listed.keys_of(state.code, "log") if k.key.alg == "Ed25519"]
    cosigners = [
        CosignerKey(s.witness_name, k.key)
        for s in listed.nodes()
        if s.witness_name
        for k in listed.keys_of(s.code, "witness")
    ]
    return keys, cosigners


def _describe(verdict: Verdict) -> dict[str, Any]:
    def head(checkpoint: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a checkpoint or None
        return None if checkpoint is None else {"size": checkpoint.size, "root": checkpoint.root.hex()}

    evidence = verdict.evidence
    return {
        "id": evidence.id,
        "type": evidence.type,
        "origin": evidence.origin,
        "accused": verdict.accused,
        "convicts": verdict.convicts,
        "says": verdict.says,
        "older": head(verdict.older),
        "newer": head(verdict.newer),
        "seen": [{"at": s.at, "by": s.by, "where": s.where} for s in evidence.seen],
    }


@app.command("list")
def list_evidence(
    url: NodeUrl = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the records that a node keeps. `/evidence/ID` of that node gives one."""
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`

    with node_client(url or load_settings(settings_file).public_url) as client:
        items = client.get("/evidence")["items"]
    if as_json:
        print_json({"items": items})
        return
    rows = [
        (i["at"], i["type"], i["accused"], i["origin"], i["found_by"] or "this node", i["id"]) for i in items
    ]
    print_table(("Since", "Type", "Accused", "Log", "Found by", "Id"), rows)
