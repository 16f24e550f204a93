"""The half of `pagemill models` that is about encoders: named models, and folders of one's own.

Layer: `cli.commands`; imports no machine-learning package but what a fetch from a hub needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import out, print_json
from pagemill_cli.output.target import bare_s3
from pagemill_cli.settings import read_settings
from pagemill_core.errors import EngineUnavailableError, InvalidSpecError
from pagemill_core.storage.open import open_store
from pagemill_worker.embed.catalogue import known_models, named_model
from pagemill_worker.embed.digest import digest_of, file_digests
from pagemill_worker.embed.fetching import (
    FetchedModel,
    fetch_model,
    fetched_models,
    place_of,
    read_note,
    verify_model,
    wanted,
)
from pagemill_worker.embed.settings import ModelsSettings

Shown = dict[str, Any]


def names() -> list[str]:
    """The names of the catalogue."""
    return list(known_models())


def is_model(name: str) -> bool:
    """Whether the user can mean a model by this: a name of the catalogue, a URI, or a path."""
    return name in known_models() or "/" in name or Path(name).exists()


def listed(name: str) -> Shown:
    """One model as `list` shows it. Raises: InvalidSpecError for a URI or path, which `verify` is for."""
    model = named_model(name)
    cache = ModelsSettings().dir
    note = read_note(cache / name)
    is_here = (cache / name).is_dir() or model.package is not None
    return {
        "name": name,
        "reads": list(model.sides),
        "dim": model.dim,
        "licence": model.licence,
        "state": "Here" if is_here else "Missing",
        "where": place_of(model, cache),
        "digest": note.digest if note else "",
        "summary": model.summary,
    }


def verified(asked: list[str] | None) -> list[Shown]:
    """The models, hashed again; None: all that were fetched."""
    cache = ModelsSettings().dir
    if asked is None:
        return [_verified(model) for model in fetched_models(cache)]
    return [_verify_one(name, cache) for name in asked]


def _verify_one(name: str, cache: Path) -> Shown:
    folder = cache / name if name in known_models() else Path(name.removeprefix("file://"))
    if (note := read_note(folder)) is not None:
        return _verified(note)
    if name in known_models() and not folder.exists():
        raise EngineUnavailableError(
            f"the model {name} was not fetched to this machine", advice=named_model(name).how_to_get
        )
    if not folder.exists():
        raise InvalidSpecError(f"{name} is not on this machine", advice="name a folder or a file that is there")
    return {
        "name": name,
        "state": "Unknown",
        "where": str(folder),
        "digest": digest_of(file_digests(folder)),
        "odd": [],
    }


def _verified(model: FetchedModel) -> Shown:
    state, odd = verify_model(model)
    return {"name": model.name, "state": state, "where": str(model.path), "digest": model.digest, "odd": odd}


def fetch(asked: list[str], source: str, revision: str, output: str) -> None:
    """Fetch models one after the other."""
    settings = read_settings()
    cache = ModelsSettings().dir
    done: list[Shown] = []
    for name in asked:
        model = wanted(name, cache, revision=revision or None, source=source)
        fetched = fetch_model(model, lambda uri: open_store(uri, bare_s3(settings)))
        done.append(
            {
                "name": fetched.name,
                "path": str(fetched.path),
                "uri": fetched.uri,
                "digest": fetched.digest,
                "isNew": fetched.is_new,
            }
        )
        if output == "text":
            typer.echo(f"{fetched.name}: {'fetched' if fetched.is_new else 'there already'}\n  {fetched.path}")
            typer.echo(f"  {fetched.digest}")
    if output == "json":
        print_json({"fetched": done})


def show(models: list[Shown]) -> None:
    """The catalogue as a table, or what was verified, with digests on lines of their own to be copied."""
    if "dim" not in models[0]:
        for model in models:
            odd = f": {', '.join(model['odd'][:3])}" if model["odd"] else ""
            typer.echo(f"{model['name']}: {model['state']}{odd}\n  {model['where']}\n  {model['digest']}")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("MODEL", "READS", "DIM", "LICENCE", "STATE", "WHERE"):
        table.add_column(column, justify="right" if column == "DIM" else "left")
    for model in models:
        reads = "+".join("pictures" if side == "visual" else "texts" for side in model["reads"])
        state = f"[{'green' if model['state'] == 'Here' else 'dim'}]{model['state']}[/]"
        table.add_row(model["name"], reads, str(model["dim"]), model["licence"], state, escape(str(model["where"])))
    out().print(table)
