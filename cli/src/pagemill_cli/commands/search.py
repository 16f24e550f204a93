"""`pagemill search`: the rows of an output nearest to a text, a picture or one of them.

Layer: `cli.commands`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import FileOrUri, JobName, Output, out, print_json
from pagemill_cli.output.search import Answer, Asked, find, write_search_sheet
from pagemill_cli.output.target import open_target
from pagemill_cli.settings import read_settings
from pagemill_core.api.v1alpha1.models import Trust
from pagemill_worker.embed.load import load_text, load_visual
from pagemill_worker.embed.search.opening import SearchSettings
from pagemill_worker.embed.search.query import Loaders
from pagemill_worker.embed.search.rows import VECTORS
from pagemill_worker.embed.search.space import Machine
from pagemill_worker.embed.settings import ModelsSettings
from pagemill_worker.machine import machine


def search(
    target: FileOrUri,
    query: Annotated[str, typer.Argument(metavar="[TEXT]", help="What to look for, in words.")] = "",
    image: Annotated[str, typer.Option(help="Look for what resembles this picture: a path or a URI.")] = "",
    like: Annotated[str, typer.Option(metavar="ITEM", help="Look for what resembles this item of the output.")] = "",
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=10_000, help="How many rows to find.")] = 10,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet with the pictures: an HTML file.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Look at every row, even where there is an index.")] = False,
    column: Annotated[str, typer.Option(help="The dataset's column of vectors.")] = VECTORS,
    model: Annotated[str, typer.Option(help="Where the job's model lies here, if not where the job says.")] = "",
    prompt: Annotated[str | None, typer.Option(help="Put in front of the text. Default: as the model wants.")] = None,
    trust: Annotated[
        Trust, typer.Option(help="Whether the model's files may run code; the job's word is not taken.")
    ] = "none",
    device: Annotated[str, typer.Option(help="Where the query is encoded: auto, cpu or gpu.")] = "auto",
    job: JobName = "",
    output: Output = "text",
) -> None:
    """Find the rows nearest to a text, a picture (--image) or an item (--like), by their cosine.

    By the index where the output has one (output.formats: [faiss]), else through Parquet alone, exactly; from a folder
    or from S3. The query is encoded by the job's own model, which has to be on this machine; another one is refused.
    Of a later run's fingerprint, nothing is searched by an old index. Exit status: 0 found, 69 the model is not here,
    70 another model or other rows, 75 no dataset or no such item.

    Example: pagemill search out/photos "a cup of coffee" --sheet coffee.html
    """
    opened = open_target(target, read_settings(), job)
    asked = Asked(text=query, image=image, like=like, prompt=prompt, k=k)
    models = ModelsSettings()
    threads = machine().cores
    settings = SearchSettings(column=column, exact=exact, threads=threads, cache=models.dir / "indexes")
    here = Machine(cache=models.dir, trust=trust, device=device, threads=threads, model_uri=model or None)
    answer = find(opened, asked, settings, here, encoders())
    if sheet is not None:
        write_search_sheet(opened, asked, answer, sheet)
    if output == "json":
        hits = [hit.as_json() for hit in answer.hits]
        notes = list(answer.notes)
        print_json({"output": opened.uri, "query": asked.shown, "how": answer.how, "notes": notes, "hits": hits})
        return
    _print(out(), answer, sheet)


def encoders() -> Loaders:
    """How this command loads encoders."""
    return Loaders(text=load_text, visual=load_visual)


def _print(console: Console, answer: Answer, sheet: Path | None) -> None:
    table = Table.grid(padding=(0, 2))
    for hit in answer.hits:
        caption = hit.row.caption or hit.row.source_uri
        table.add_row(str(hit.rank), f"{hit.score:.4f}", escape(hit.row.id), f"[dim]{escape(caption)}[/]")
    console.print(table if answer.hits else "Nothing was found.", highlight=False)
    console.print(f"[dim]{escape(answer.how)}, {answer.count:,} rows[/]", highlight=False)
    for note in answer.notes:
        console.print(f"[dim]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    if sheet is not None:
        console.print(f"[dim]→[/] open {escape(str(sheet))} in a browser", highlight=False, soft_wrap=True)
