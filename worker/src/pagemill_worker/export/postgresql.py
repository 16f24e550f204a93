"""Rows into PostgreSQL with pgvector: one transaction that leaves the table as the output is.

Layer: `worker.export`, the one module that knows PostgreSQL. Rows go in by binary COPY into a staging table and from
there by id: new ones inserted, changed ones updated, equal ones left alone, and those that left the output deleted.
Other outputs' rows in the same table stay. Exporting twice changes nothing. No message ever holds the password.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pagemill_core.errors import (
    AccessDeniedError,
    EngineUnavailableError,
    IntegrityError,
    InvalidSpecError,
    PagemillError,
    StoreFullError,
    StoreUnavailableError,
)
from pagemill_worker.export.rows import Exported, ExportRows

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql", "postgres")
MAX_DIM = 16_000  # pgvector's own limits
MAX_INDEXED_DIM = 2_000
_CONNECT_S = 15


@dataclass(frozen=True, slots=True)
class Table:
    """Where rows go: `name` may be `schema.table`; `has_index` adds an HNSW index by cosine."""

    uri: str
    name: str
    has_index: bool = False


def shown_database(uri: str) -> str:
    """`uri` as messages may show it: host, port and database alone."""
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{parts.hostname or ''}{port}{parts.path}"
    except ValueError:
        return "postgresql://…"


def export_to_postgresql(rows: ExportRows, table: Table) -> Exported:
    """Make the table hold the output's rows: `id`, `embedding`, `metadata` (all other columns) and `output`.

    Raises: EngineUnavailableError without the packages; InvalidSpecError, AccessDeniedError, StoreUnavailableError,
    IntegrityError as the server answers.
    """
    started = time.monotonic()
    _check(rows.dim, table)
    psycopg = _packages()
    with _mapped(table.uri), psycopg.connect(table.uri, connect_timeout=_CONNECT_S) as connection:
        _prepare(connection, rows, table)
        count = _stage(connection, rows)
        written, deleted = _merge(connection, rows, table)
        if table.has_index:
            _index(connection, table)
    seconds = round(time.monotonic() - started, 2)
    where = f"{shown_database(table.uri)} table {table.name}"
    return Exported(where, count, rows.dim, seconds, written, deleted)


def _check(dim: int, table: Table) -> None:
    if dim > MAX_DIM:
        raise InvalidSpecError(f"rows of {dim} numbers are longer than the {MAX_DIM} that pgvector holds")
    if table.has_index and dim > MAX_INDEXED_DIM:
        raise InvalidSpecError(
            f"rows of {dim} numbers are longer than the {MAX_INDEXED_DIM} that pgvector indexes",
            advice="leave out --index",
        )
    if not all(table.name.split(".")) or table.name.count(".") > 1:
        raise InvalidSpecError(f"--table {table.name!r} is no table's name", advice="write table or schema.table")


def _packages() -> Any:
    try:
        import pgvector.psycopg  # noqa: F401
        import psycopg
    except ImportError as error:
        raise EngineUnavailableError(
            "the packages for PostgreSQL are not installed", advice="install pagemill[export]"
        ) from error
    return psycopg


def _prepare(connection: psycopg.Connection[Any], rows: ExportRows, table: Table) -> None:
    from pgvector.psycopg import register_vector
    from psycopg import sql

    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)
    create = sql.SQL(
        "CREATE TABLE IF NOT EXISTS {} (id text PRIMARY KEY, embedding vector({}) NOT NULL, "
        "metadata jsonb NOT NULL, output text NOT NULL)"
    )
    connection.execute(create.format(_name(table), sql.Literal(rows.dim)))
    connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(_name(table)))
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE pagemill_staging (LIKE {} INCLUDING DEFAULTS) ON COMMIT DROP").format(
            _name(table)
        )
    )


def _stage(connection: psycopg.Connection[Any], rows: ExportRows) -> int:
    from psycopg.types.json import Jsonb

    count, output = 0, rows.live.store.uri
    copy_in = "COPY pagemill_staging (id, embedding, metadata, output) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
        copy.set_types(["text", "vector", "jsonb", "text"])
        for columns, vectors in rows.pairs():
            for row, vector in zip(columns, vectors, strict=True):
                copy.write_row((row.pop("id"), vector, Jsonb(row), output))
            count += len(columns)
    return count


def _merge(connection: psycopg.Connection[Any], rows: ExportRows, table: Table) -> tuple[int, int]:
    """(rows inserted or changed, rows deleted)."""
    from psycopg import sql

    upsert = sql.SQL(
        "INSERT INTO {table} AS t (id, embedding, metadata, output) "
        "SELECT id, embedding, metadata, output FROM pagemill_staging "
        "ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding, metadata = EXCLUDED.metadata, "
        "output = EXCLUDED.output WHERE (t.embedding, t.metadata, t.output) "
        "IS DISTINCT FROM (EXCLUDED.embedding, EXCLUDED.metadata, EXCLUDED.output)"
    )
    written = connection.execute(upsert.format(table=_name(table))).rowcount
    delete = sql.SQL(
        "DELETE FROM {table} AS t WHERE t.output = {output} "
        "AND NOT EXISTS (SELECT FROM pagemill_staging AS s WHERE s.id = t.id)"
    )
    connection.execute("CREATE INDEX ON pagemill_staging (id)")
    output = sql.Literal(rows.live.store.uri)
    deleted = connection.execute(delete.format(table=_name(table), output=output)).rowcount
    return written, deleted


def _index(connection: psycopg.Connection[Any], table: Table) -> None:
    from psycopg import sql

    name = sql.Identifier(f"{table.name.rpartition('.')[2]}_embedding_hnsw")
    create = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (embedding vector_cosine_ops)")
    connection.execute(create.format(name, _name(table)))


def _name(table: Table) -> Any:
    from psycopg import sql

    return sql.Identifier(*table.name.split("."))


@contextmanager
def _mapped(uri: str) -> Iterator[None]:
    """The server's and the client library's errors as ours; what they say of an address may hold its password."""
    psycopg = _packages()
    where = shown_database(uri)
    try:
        yield
    except psycopg.Error as error:
        raise _error(psycopg, error, where, uri) from None
    except UnicodeError:
        raise InvalidSpecError(f"{where} cannot be an address", advice=_ADDRESS) from None


_ADDRESS = "write postgresql://user@host:5432/database, the password in PGPASSWORD or in ~/.pgpass"


def _error(psycopg: Any, error: Any, where: str, uri: str) -> PagemillError:
    if error.sqlstate is None and isinstance(error, psycopg.ProgrammingError):
        return InvalidSpecError(f"{where} cannot be an address", advice=_ADDRESS)
    said = _scrubbed(str(error), uri)
    state = str(error.sqlstate or "")
    if state in ("28000", "28P01", "42501") or "password" in said.lower():
        return AccessDeniedError(f"{where}: {said}", advice="check user and password, and grant CREATE on the schema")
    if state.startswith("53"):
        return StoreFullError(f"{where}: {said}")
    if isinstance(error, psycopg.OperationalError):
        return StoreUnavailableError(f"{where}: {said}", advice="check that the server is there, and try again")
    if state in ("0A000", "58P01", "42704"):
        return InvalidSpecError(f"{where}: {said}", advice="install pgvector on the server")
    return IntegrityError(f"{where}: {said}", advice="export into another table, or drop this one")


def _scrubbed(text: str, uri: str) -> str:
    """The first line of a message, without the password of `uri` should it be in there."""
    line = text.strip().partition("\n")[0][:300]
    try:
        password = urlsplit(uri).password
    except ValueError:
        return "the address cannot be read"
    return line.replace(password, "…") if password else line
