"""Rows in a real PostgreSQL with pgvector: what is there after one export, after another, and after a failed one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from pagemill_core.errors import AccessDeniedError, IntegrityError, InvalidSpecError, StoreUnavailableError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.export.door import Destination, export
from pagemill_worker.export.postgresql import shown_database
from pagemill_worker.export.rows import Exported
from pagemill_worker.testing.vector_dataset import MadePart, clustered, write_vectors

DIM = 12
PASSWORD = "hunter2-and-more"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that runs for these tests alone.

    Not below pytest's own folder: the server runs as another user where the tests are root's, and every pytest that
    starts on this machine shuts that folder to others.
    """
    with tempfile.TemporaryDirectory(prefix="pagemill-pg-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)  # its package warns without one
        import pgserver

        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield running.get_uri()
        running.cleanup()


@pytest.fixture
def vectors() -> np.ndarray:
    return clustered(40, DIM)


def write(uri: str, store: MemoryStore, table: str, **changes: Any) -> Exported:
    return export(store, Destination(uri=uri, table=table, **changes), S3Settings())


def rows_of(uri: str, table: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(uri) as connection:
        register_vector(connection)
        return connection.execute(f"SELECT id, embedding, metadata, output FROM {table} ORDER BY id").fetchall()


def make_store(vectors: np.ndarray, name: str = "out", **changes: Any) -> MemoryStore:
    store = MemoryStore(name)
    part = {
        "ids": [f"item-{number:02d}" for number in range(len(vectors))],
        "vectors": vectors,
        "columns": {
            "meta_width": list(range(len(vectors))),
            "meta_note": ["a\0b", None, 'quote " and , and \n'] + ["x"] * (len(vectors) - 3),
            "meta_ratio": [float("nan")] + [0.5] * (len(vectors) - 1),
        },
    }
    write_vectors(store, MadePart(**{**part, **changes}))
    return store


def test_export_fills_a_table_with_vectors_and_metadata(server: str, vectors: np.ndarray) -> None:
    exported = write(server, make_store(vectors, failed=frozenset({"item-07"})), "photos")

    rows = rows_of(server, "photos")
    assert (exported.rows, exported.dim, exported.written, exported.deleted) == (39, DIM, 39, 0)
    assert len(rows) == 39
    item, vector, metadata, output = rows[1]
    assert (item, output) == ("item-01", "memory://out")
    assert vector.to_numpy() == pytest.approx(vectors[1])
    assert metadata["meta_width"] == 1
    assert metadata["caption"] == "caption of item-01"
    assert "meta_note" not in metadata
    assert rows[0][2]["meta_note"] == "a\N{REPLACEMENT CHARACTER}b"
    assert "meta_ratio" not in rows[0][2]


def test_export_again_changes_no_row(server: str, vectors: np.ndarray) -> None:
    store = make_store(vectors)
    write(server, store, "again")
    with psycopg.connect(server) as connection:
        before = connection.execute("SELECT id, xmin::text FROM again ORDER BY id").fetchall()

    exported = write(server, store, "again")

    with psycopg.connect(server) as connection:
        assert connection.execute("SELECT id, xmin::text FROM again ORDER BY id").fetchall() == before
    assert (exported.rows, exported.written, exported.deleted) == (40, 0, 0)


def test_export_follows_the_output_and_leaves_other_outputs_alone(server: str, vectors: np.ndarray) -> None:
    write(server, make_store(vectors[:5] * 2, name="other", ids=[f"o{n}" for n in range(5)], columns={}), "shared")
    write(server, make_store(vectors), "shared")
    changed = make_store(vectors[::-1][:30].copy(), columns={})

    exported = write(server, changed, "shared")

    rows = rows_of(server, "shared")
    assert (exported.written, exported.deleted) == (30, 10)
    assert len(rows) == 35
    assert rows[0][1].to_numpy() == pytest.approx(vectors[39])


def test_export_index_serves_the_nearest_rows(server: str, vectors: np.ndarray) -> None:
    write(server, make_store(vectors), "public.indexed", has_index=True)
    write(server, make_store(vectors), "public.indexed", has_index=True)

    with psycopg.connect(server) as connection:
        register_vector(connection)
        connection.execute("SET enable_seqscan = off")
        nearest = "SELECT id FROM indexed ORDER BY embedding <=> %s LIMIT 1"
        assert connection.execute(nearest, (vectors[9],)).fetchone() == ("item-09",)
        plan = connection.execute("EXPLAIN " + nearest, (vectors[9],)).fetchall()
    assert "indexed_embedding_hnsw" in str(plan)


def test_export_of_rows_too_long_for_an_index_is_refused_before_anything_is_sent(server: str) -> None:
    store = MemoryStore("long")
    write_vectors(store, MadePart(ids=["a", "b", "c"], vectors=clustered(3, 2304)))

    with pytest.raises(InvalidSpecError, match="2000 that pgvector indexes"):
        write(server, store, "long_rows", has_index=True)
    assert write(server, store, "long_rows").dim == 2304


def test_export_into_a_table_of_other_rows_leaves_it_as_it_was(server: str, vectors: np.ndarray) -> None:
    write(server, make_store(vectors), "narrow")
    store = MemoryStore("wide")
    write_vectors(store, MadePart(ids=["a"], vectors=clustered(1, DIM + 1)))

    with pytest.raises(IntegrityError, match="expected 12 dimensions, not 13") as caught:
        write(server, store, "narrow")

    assert "another table" in caught.value.advice
    assert len(rows_of(server, "narrow")) == 40


def test_export_that_dies_midway_leaves_the_table_as_it_was(server: str, vectors: np.ndarray) -> None:
    write(server, make_store(vectors[:10].copy(), columns={}), "midway")
    store = make_store(vectors, columns={}, number=0)
    write_vectors(store, MadePart(ids=["z"], vectors=vectors[:1], number=1))
    key = "dataset/run=00000001/part-00001.parquet"
    store.put(key, store.get(key).data[:-500] + b"\0" * 500)

    with pytest.raises(IntegrityError, match="no Parquet file"):
        write(server, store, "midway")

    assert len(rows_of(server, "midway")) == 10


def test_export_table_name_is_no_place_for_sql(server: str, vectors: np.ndarray) -> None:
    name = 'x"; DROP TABLE photos; --'

    write(server, make_store(vectors), name)

    with psycopg.connect(server) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = %s", (name,)).fetchone()
    assert found == (1,)


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("postgresql://me:{password}@127.0.0.1:1/db", StoreUnavailableError),
        ("postgresql://me:{password}@127.0.0.1:1/db?nonsense=1", InvalidSpecError),
        ("postgresql://me:{password}@[::1/db", InvalidSpecError),
        ("postgresql://me:{password}@127.0.0.1:port/db", StoreUnavailableError),
    ],
    ids=["nobody there", "unknown option", "broken host", "broken port"],
)
def test_export_never_shows_the_password(vectors: np.ndarray, uri: str, want: type[Exception]) -> None:
    with pytest.raises(want) as caught:
        write(uri.format(password=PASSWORD), make_store(vectors), "t")

    error = caught.value
    told = f"{error!s} {error!r} {getattr(error, 'advice', '')} {error.__cause__!r}"
    assert PASSWORD not in told
    assert error.__suppress_context__


def test_export_without_the_right_to_create_says_what_to_grant(server: str, vectors: np.ndarray) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    uri = server.replace("postgres:", f"reader:{quote(PASSWORD)}", 1)

    with pytest.raises(AccessDeniedError) as caught:
        write(uri, make_store(vectors), "denied")

    assert "grant" in caught.value.advice
    assert PASSWORD not in str(caught.value)


def test_export_needs_a_table_and_a_known_form(server: str, vectors: np.ndarray) -> None:
    with pytest.raises(InvalidSpecError, match="name of a table"):
        write(server, make_store(vectors), "")
    with pytest.raises(InvalidSpecError, match="no destination"):
        write("out.xlsx", make_store(vectors), "")
    with pytest.raises(InvalidSpecError, match="of databases"):
        write("out.npy", make_store(vectors), "t")


@pytest.mark.parametrize(
    "uri",
    ["postgresql://me:secret@db:5433/x", "postgres://me:secret@db:5433/x?password=secret", "postgresql://me:se@[bad"],
)
def test_database_as_shown_holds_neither_user_nor_password(uri: str) -> None:
    assert "se" not in shown_database(uri).removeprefix("postgresql://")


def test_export_files_hold_every_row_that_counts(tmp_path: Path, vectors: np.ndarray) -> None:
    import json

    import lance
    import pyarrow.parquet as pq

    store = make_store(vectors, failed=frozenset({"item-07"}))
    for name in ("a.lance", "a.parquet", "a.npy"):
        for _ in range(2):
            assert export(store, Destination(uri=str(tmp_path / name)), S3Settings()).rows == 39

    ids = json.loads((tmp_path / "a.ids.json").read_text())
    assert np.load(tmp_path / "a.npy") == pytest.approx(np.delete(vectors, 7, axis=0))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["id"].to_pylist() == ids == lance.dataset(str(tmp_path / "a.lance")).to_table()["id"].to_pylist()
    assert "status" not in table.schema.names
    assert table.schema.metadata[b"pagemill.fingerprint"] == b"f" * 64
    nearest = {"column": "embedding", "q": vectors[20], "k": 1}
    assert lance.dataset(str(tmp_path / "a.lance")).to_table(nearest=nearest)["id"].to_pylist() == ["item-20"]
