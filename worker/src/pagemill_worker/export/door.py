"""From a destination as a user writes it to what writes there.

Layer: the top of `worker.export`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.search.rows import VECTORS
from pagemill_worker.export.files import export_to_numpy, export_to_parquet
from pagemill_worker.export.lance import export_to_lance
from pagemill_worker.export.postgresql import SCHEMES, Table, export_to_postgresql
from pagemill_worker.export.rows import Exported, ExportRows

FORMS = (".lance", ".parquet", ".npy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where rows go: a PostgreSQL address with a `table`, else a path or s3:// URI whose ending says the form."""

    uri: str
    table: str = ""
    has_index: bool = False
    column: str = VECTORS


def export(store: ObjectStore, destination: Destination, s3: S3Settings) -> Exported:
    """Write the rows that count. Repeating it leaves the same rows.

    Raises: InvalidSpecError for a destination of no known form; as each form does.
    """
    is_database = destination.uri.partition("://")[0].lower() in SCHEMES
    _check(destination, is_database=is_database)
    with tempfile.TemporaryDirectory(prefix="pagemill-export-") as folder:
        rows = ExportRows.open(store, Path(folder), destination.column)
        if is_database:
            table = Table(destination.uri, destination.table, destination.has_index)
            return export_to_postgresql(rows, table)
        if destination.uri.endswith(".lance"):
            return export_to_lance(rows, destination.uri, s3)
        if destination.uri.endswith(".parquet"):
            return export_to_parquet(rows, destination.uri, s3, Path(folder))
        return export_to_numpy(rows, destination.uri, s3, Path(folder))


def _check(destination: Destination, *, is_database: bool) -> None:
    if is_database:
        if not destination.table:
            raise InvalidSpecError("a database needs the name of a table", advice="add --table NAME")
        return
    if not destination.uri.endswith(FORMS):
        raise InvalidSpecError(
            f"{destination.uri} is no destination",
            advice=f"write postgresql://…, or a path or s3:// URI that ends in {', '.join(FORMS)}",
        )
    if destination.table or destination.has_index:
        raise InvalidSpecError("--table and --index are of databases", advice="leave them out for a file")
