"""`pagemill export`: the rows of an output into a database or a file.

Layer: `cli.commands`.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from pagemill_cli.commands.arguments import FileOrUri, JobName, Output, out, print_json
from pagemill_cli.output.target import open_target
from pagemill_cli.settings import read_settings
from pagemill_worker.embed.search.rows import VECTORS
from pagemill_worker.export.door import Destination
from pagemill_worker.export.door import export as write_rows


def export(
    target: FileOrUri,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION",
            help="postgresql://user@host/database, or a path or s3:// URI: *.lance, *.parquet, *.npy.",
        ),
    ],
    table: Annotated[str, typer.Option(help="Table of the database, made if need be: name or schema.name.")] = "",
    index: Annotated[bool, typer.Option("--index", help="Add an HNSW index by cosine to the table.")] = False,
    column: Annotated[str, typer.Option(help="The dataset's column of vectors.")] = VECTORS,
    job: JobName = "",
    output: Output = "text",
) -> None:
    """Write the vectors and all other columns of an output's rows into PostgreSQL (pgvector), Lance, Parquet or NumPy.

    Rows that count: the newest success of each item that is still in the source. In a database rows are matched by
    id within one transaction, and rows that left the output are deleted; a file is replaced whole. Doing it again
    leaves the same rows. Put a database's password into PGPASSWORD or ~/.pgpass: a command line can be read by all.

    Example: pagemill export out/photos postgresql://me@localhost/search --table photos --index
    """
    opened = open_target(target, read_settings(), job)
    found = write_rows(
        opened.writer.store,
        Destination(uri=destination, table=table, has_index=index, column=column),
        opened.s3,
    )
    if output == "json":
        print_json(
            {
                "output": opened.uri,
                "destination": found.destination,
                "rows": found.rows,
                "dim": found.dim,
                "written": found.written,
                "deleted": found.deleted,
                "seconds": found.seconds,
            }
        )
        return
    changes = "" if found.written is None else f": {found.written:,} new or changed, {found.deleted or 0:,} deleted"
    out().print(
        f"{found.rows:,} rows of {found.dim:,} numbers in {escape(found.destination)}{changes} ({found.seconds:g} s)",
        highlight=False,
        soft_wrap=True,
    )
