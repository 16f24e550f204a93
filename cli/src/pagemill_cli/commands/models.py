"""`pagemill models`: the model files of the local engines, and the models of encoders.

Layer: `cli.commands`. Nothing is downloaded but what the user names: a URI, or a model of the catalogue, which is
pinned.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands import encoder_models
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
    help="List, fetch and verify models: the files of the local engines, and the models of encoders.",
    no_args_is_help=True,
    epilog="Example: pagemill models verify",
)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]…", help="Local engines, and models of encoders. Default: all of both."),
]


@app.command("list")
def list_models(names: Names = None, output: Output = "text") -> None:
    """List the model files that engines find on this machine, and the models that encoders may name.

    Example: pagemill models list tesseract
    """
    engines, encoders = _split(names)
    _show(*_found(engines), [encoder_models.listed(name) for name in encoders], output)


@app.command()
def verify(names: Names = None, output: Output = "text") -> None:
    """Hash every model file and compare it with what brought it: package records, or the note that fetch wrote.

    Of encoders' models, those that were fetched. A folder's path prints the digest that a job's `model.digest` needs.

    Exit status: 0 nothing is damaged, 70 something is.

    Example: pagemill models verify paddleocr
    """
    engines, encoders = _split(names)
    found, missing = _found(engines)
    verified = encoder_models.verified(encoders if names else None)
    _show(found, missing, verified, output)
    if any(model.state == "Damaged" for model in found) or any(model["state"] == "Damaged" for model in verified):
        raise typer.Exit(IntegrityError.exit_code)


@app.command()
def fetch(
    names: Names = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URI",
            help="An engine's one file: s3://…, file:///…, https://… or a path. A model's folder.",
        ),
    ] = "",
    sha256: Annotated[str, typer.Option(metavar="DIGEST", help="What its SHA-256 must be; required for http(s).")] = "",
    revision: Annotated[
        str, typer.Option(metavar="COMMIT", help="The revision of an encoder's model, where none is pinned.")
    ] = "",
    output: Output = "text",
) -> None:
    """Make models ready. An engine: prepare what it makes of installed packages, so that no run waits for it.

    An engine with --from: fetch that file into the engine's folder, checked by its digest.

    A model of the catalogue, or an hf:// or s3:// URI: fetch it from its hub at the pinned revision, or from --from (a
    folder or s3:// prefix with the same files), and note the digest of every file. Nothing is ever looked up by name.

    Example: pagemill models fetch dinov2-small
    """
    engines, encoders = _split(names or list(ENGINES))
    if encoders:
        if engines or (source and len(encoders) > 1):
            raise InvalidSpecError("fetch engines and models of encoders one by one", advice="name one of them")
        encoder_models.fetch(encoders, source, revision, output)
    elif source:
        _fetch_one(engines, source, sha256, output)
    else:
        _prepare(engines, output)


def _prepare(engines: list[str], output: str) -> None:
    settings = OcrSettings()
    prepared: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for engine in engines:
        try:
            prepared[engine] = [str(path) for path in prepare_models(engine, settings)]
            model_files(engine, settings)
        except EngineUnavailableError as error:
            missing[engine] = f"{error.message}; {error.advice}" if error.advice else error.message
    if output == "json":
        print_json({"prepared": prepared, "missing": missing})
        return
    for engine in engines:
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


def _split(names: list[str] | None) -> tuple[list[str], list[str]]:
    """(engines, models of encoders) among the names; all of both for None. Raises: InvalidSpecError for neither."""
    if names is None:
        return list(ENGINES), encoder_models.names()
    encoders = [name for name in names if name not in ENGINES]
    for name in encoders:
        if not encoder_models.is_model(name):
            raise InvalidSpecError(
                f"{name} is no engine with models and no model of an encoder",
                advice=f"engines: {', '.join(ENGINES)}; `pagemill models list` shows the models",
            )
    return [name for name in names if name in ENGINES], encoders


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


def _show(found: list[ModelFile], missing: dict[str, str], encoders: list[encoder_models.Shown], output: str) -> None:
    if output == "json":
        print_json({"models": [_as_json(model) for model in found], "encoders": encoders, "missing": missing})
        return
    if found or missing:
        _show_engines(found, missing)
    if encoders:
        encoder_models.show(encoders)


def _show_engines(found: list[ModelFile], missing: dict[str, str]) -> None:
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
