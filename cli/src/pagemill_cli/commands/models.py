"""`pagemill models`: the model files of the local engines.

Layer: `cli.commands`. Nothing is downloaded from anywhere but the URI that the user writes.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import Output, out, print_json
from pagemill_cli.output.target import bare_s3
from pagemill_cli.settings import CliSettings, read_settings
from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError
from pagemill_worker.environment import source_fetcher
from pagemill_worker.fetch.fetched import shown_uri
from pagemill_worker.ocr.models import ENGINES, ModelFile, model_files, place_for, prepare_models, store_model
from pagemill_worker.ocr.settings import OcrSettings

MAX_MODEL_BYTES = 4 << 30  # arbitrary; the largest of the OCR models has 200 MB

app = typer.Typer(
    help="List, fetch and verify the model files of the local engines.",
    no_args_is_help=True,
    epilog="Example: pagemill models verify",
)

Engines = Annotated[list[str] | None, typer.Argument(metavar="[ENGINE]…", help="Default: every local engine.")]


@app.command("list")
def list_models(engines: Engines = None, output: Output = "text") -> None:
    """List the model files that engines find on this machine, with size, digest and origin.

    Example: pagemill models list tesseract
    """
    _show(*_found(_chosen(engines)), output)


@app.command()
def verify(engines: Engines = None, output: Output = "text") -> None:
    """Hash every model file and compare it with what brought it: package records, or the note that fetch wrote.

    Exit status: 0 nothing is damaged, 70 something is.

    Example: pagemill models verify paddleocr
    """
    found, missing = _found(_chosen(engines))
    _show(found, missing, output)
    if any(model.state == "Damaged" for model in found):
        raise typer.Exit(IntegrityError.exit_code)


@app.command()
def fetch(
    engines: Engines = None,
    source: Annotated[
        str, typer.Option("--from", metavar="URI", help="One model file: s3://…, file:///…, https://… or a path.")
    ] = "",
    sha256: Annotated[str, typer.Option(metavar="DIGEST", help="What its SHA-256 must be; required for http(s).")] = "",
    output: Output = "text",
) -> None:
    """Make models ready. Without --from: prepare what engines make of installed packages, so that no run waits for it.

    With --from, and exactly one engine: fetch that file into the engine's folder, checked by its digest. Nothing is
    ever looked up by name: models come from installed packages or from the URI you write.

    Example: pagemill models fetch easyocr --from s3://models/japanese_g2.pth --sha256 0a6b…
    """
    chosen = _chosen(engines)
    if source:
        _fetch_one(chosen, source, sha256, output)
        return
    settings = OcrSettings()
    prepared: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for engine in chosen:
        try:
            prepared[engine] = [str(path) for path in prepare_models(engine, settings)]
            model_files(engine, settings)
        except EngineUnavailableError as error:
            missing[engine] = f"{error.message}; {error.advice}" if error.advice else error.message
    if output == "json":
        print_json({"prepared": prepared, "missing": missing})
        return
    for engine in chosen:
        if engine in missing:
            typer.echo(f"{engine}: missing: {missing[engine]}")
        else:
            typer.echo(f"{engine}: ready" + "".join(f"\n  {path}" for path in prepared[engine]))


def _fetch_one(chosen: list[str], source: str, sha256: str, output: str) -> None:
    if len(chosen) != 1:
        raise InvalidSpecError("--from fetches one file for one engine", advice="name the engine: tesseract, easyocr …")
    if source.lower().startswith(("http://", "https://")) and not sha256:
        raise InvalidSpecError(
            f"{shown_uri(source)}: a file from the web needs --sha256", advice="take the digest from who publishes it"
        )
    folder, variable = place_for(chosen[0], OcrSettings())
    data = _read(source, read_settings())
    name = PurePosixPath(urlsplit(source).path if "://" in source else source).name
    if not name:
        raise InvalidSpecError(f"{shown_uri(source)} names no file")
    path = store_model(folder, name, data, sha256)
    if output == "json":
        print_json({"engine": chosen[0], "path": str(path), "sizeBytes": len(data), "variable": variable})
        return
    typer.echo(f"{path}: {len(data):,} bytes")
    typer.echo(f"→ {chosen[0]} finds it with {variable}={folder}")


def _read(source: str, settings: CliSettings) -> bytes:
    hosts = tuple(host.strip() for host in settings.allowed_hosts.split(",") if host.strip())
    return source_fetcher(bare_s3(settings), hosts).fetch(source, max_bytes=MAX_MODEL_BYTES).data


def _chosen(engines: list[str] | None) -> list[str]:
    for engine in engines or ():
        if engine not in ENGINES:
            raise InvalidSpecError(
                f"{engine} has no model files here", advice=f"engines with local models: {', '.join(ENGINES)}"
            )
    return list(engines or ENGINES)


def _found(engines: list[str]) -> tuple[list[ModelFile], dict[str, str]]:
    """Model files, and for engines without any what is missing."""
    settings = OcrSettings()
    found: list[ModelFile] = []
    missing: dict[str, str] = {}
    for engine in engines:
        try:
            found += model_files(engine, settings)
        except EngineUnavailableError as error:
            missing[engine] = f"{error.message}; {error.advice}" if error.advice else error.message
    return found, missing


def _show(found: list[ModelFile], missing: dict[str, str], output: str) -> None:
    if output == "json":
        print_json({"models": [_as_json(model) for model in found], "missing": missing})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("ENGINE", "MODEL", "BYTES", "SHA256", "STATE", "ORIGIN"):
        table.add_column(column, justify="right" if column == "BYTES" else "left")
    for model in found:
        style = {"Intact": "green", "Damaged": "red"}.get(model.state, "dim")
        state = f"[{style}]{model.state}[/]"
        table.add_row(
            model.engine, escape(model.name), f"{model.size_bytes:,}", model.sha256[:12], state, escape(model.origin)
        )
    console = out()
    console.print(table)
    for engine, message in missing.items():
        console.print(f"[bold]{engine}[/]: {escape(message)}", highlight=False, soft_wrap=True)


def _as_json(model: ModelFile) -> dict[str, Any]:
    return {
        "engine": model.engine,
        "name": model.name,
        "path": str(model.path),
        "sizeBytes": model.size_bytes,
        "sha256": model.sha256,
        "origin": model.origin,
        "state": model.state,
    }
