"""The index: what it finds, what it remembers, how it grows, and what is left after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_core.clock import SystemClock
from pagemill_core.errors import IntegrityError, InvalidSpecError, ObjectNotFoundError, StoreUnavailableError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import INDEX_POINTER
from pagemill_core.work.records import IndexPart, IndexPointer
from pagemill_worker.embed.search.build import IndexSettings, build_index
from pagemill_worker.embed.search.manifest import MANIFEST_KEY, REPORT_KEY, IndexManifest, IndexReport, read_manifest
from pagemill_worker.embed.search.opening import SearchSettings, open_searcher
from pagemill_worker.embed.search.shapes import FLAT_MAX_NUMBERS, choose_shape, list_count, sample_rows
from pagemill_worker.plan.digests import identity_digest
from pagemill_worker.plan.known import ITEM_INDEX_SCHEMA
from pagemill_worker.testing.vector_dataset import FINGERPRINT, MadePart, clustered, write_vectors

DIM = 16
ROWS = 1500
SETTINGS = IndexSettings(run="00000001-abcdef01", attempt="a1")
KINDS = ("flat", "ivfPq", "hnsw")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(ROWS, DIM, clusters=60)


@pytest.fixture(scope="module")
def built(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Writer]:
    """One output for each kind, its index built."""
    outputs = {}
    for kind in KINDS:
        writer = Writer(FolderStore(tmp_path_factory.mktemp(kind), fsync=False), SystemClock(), deadline_s=0)
        write_vectors(writer.store, MadePart(ids=ids(ROWS), vectors=vectors, failed=frozenset({"item-3"})))
        build_index(writer, replace(SETTINGS, kind=kind))
        outputs[kind] = writer
    return outputs


def ids(count: int, first: int = 0) -> list[str]:
    return [f"item-{number}" for number in range(first, first + count)]


def make_writer(store: ObjectStore | None = None) -> Writer:
    return Writer(store or MemoryStore(), SystemClock(), deadline_s=0)


def found(writer: Writer, query: np.ndarray, k: int = 10, *, exact: bool = False) -> list[str]:
    with open_searcher(writer, SearchSettings(exact=exact)) as searcher:
        (hits,) = searcher.search(query[None, :], k)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        return [hit.row.id for hit in hits]


def write_item_index(store: ObjectStore, seq: int, states: dict[str, str], fingerprint: str = FINGERPRINT) -> None:
    rows = [
        {
            "identity": identity_digest(item),
            "id": item,
            "version": "v1",
            "fingerprint": fingerprint,
            "status": status,
            "failed_runs": 0,
        }
        for item, status in states.items()
    ]
    rows.sort(key=lambda row: row["identity"])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=ITEM_INDEX_SCHEMA), sink)
    data = sink.getvalue().to_pybytes()
    key = f".pagemill/index/items-{seq}.parquet"
    store.put(key, data)
    part = IndexPart(key=key, size=len(data), rows=len(rows))
    store.put(INDEX_POINTER, IndexPointer(seq=seq, run=f"{seq:08d}-abcdef01", parts=[part]).to_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_index_finds_what_an_exact_search_finds(built: dict[str, Writer], vectors: np.ndarray, kind: str) -> None:
    shared = 0
    for query in vectors[10:60]:
        truth = found(built[kind], query, exact=True)
        shared += len({*truth} & {*found(built[kind], query)})

    assert shared / 500 >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_index_report_tells_recall_and_effort(built: dict[str, Writer], kind: str) -> None:
    report = IndexReport.from_bytes(built[kind].store.get(REPORT_KEY).data, REPORT_KEY)

    assert (report.kind, report.rows, report.dim, report.action) == (kind, ROWS - 1, DIM, "Built")
    assert report.recall.is_met
    assert report.recall.measured >= 0.95
    assert report.size_bytes == sum(
        built[kind].store.head(key).size  # type: ignore[union-attr]
        for key in read_manifest(built[kind]).object_keys()  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_index_scores_are_cosines(built: dict[str, Writer], vectors: np.ndarray, kind: str) -> None:
    with open_searcher(built[kind], SearchSettings()) as searcher:
        (hits,) = searcher.search(vectors[7:8], 5)

    assert hits[0].row.id == "item-7"
    want = [float(vectors[7] @ vectors[int(hit.row.id.partition("-")[2])]) for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("kind", ["ivfPq", "hnsw"])
def test_index_looks_harder_the_more_recall_is_asked_for(vectors: np.ndarray, kind: str) -> None:
    reports = []
    for wanted in (0.5, 1.0):
        writer = make_writer()
        write_vectors(writer.store, MadePart(ids=ids(ROWS), vectors=vectors))
        reports.append(build_index(writer, replace(SETTINGS, kind=kind, min_recall=wanted)))  # type: ignore[arg-type]

    little, all_of_it = (report.effort for report in reports)
    assert (little.nprobe, little.candidates, little.ef_search) <= (
        all_of_it.nprobe,
        all_of_it.candidates,
        all_of_it.ef_search,
    )
    assert reports[0].recall.measured >= 0.5
    assert reports[1].recall.measured == 1.0
    assert little != all_of_it


def test_index_hit_carries_where_its_row_comes_from(built: dict[str, Writer], vectors: np.ndarray) -> None:
    with open_searcher(built["ivfPq"], SearchSettings()) as searcher:
        (hits,) = searcher.search(vectors[42:43], 1)

    row = hits[0].row
    assert (row.id, row.run, row.part, row.row) == ("item-42", 1, 0, 42)
    assert (row.source_uri, row.caption) == ("s3://photos/item-42.jpg", "caption of item-42")
    assert hits[0].as_json()["sourceUri"] == "s3://photos/item-42.jpg"


@pytest.mark.parametrize("kind", KINDS)
def test_index_built_twice_from_the_same_rows_is_the_same(
    built: dict[str, Writer], vectors: np.ndarray, kind: str
) -> None:
    again = make_writer()
    write_vectors(again.store, MadePart(ids=ids(ROWS), vectors=vectors, failed=frozenset({"item-3"})))

    build_index(again, replace(SETTINGS, attempt="a2", kind=kind))

    one, other = read_manifest(built[kind]), read_manifest(again)
    assert one is not None and other is not None
    assert built[kind].store.get(one.index.key).data == again.store.get(other.index.key).data
    assert built[kind].store.get(one.ids.key).data == again.store.get(other.ids.key).data


@pytest.mark.parametrize("kind", KINDS)
def test_index_row_of_an_item_is_its_vector(built: dict[str, Writer], vectors: np.ndarray, kind: str) -> None:
    with open_searcher(built[kind], SearchSettings()) as searcher:
        row, none = searcher.vector_of("item-9"), searcher.vector_of("item-3")

    assert row is not None and none is None
    assert row == pytest.approx(vectors[9], abs=1e-3)


def test_index_is_read_from_a_store_that_is_no_folder(vectors: np.ndarray, tmp_path: Path) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(ROWS), vectors=vectors))
    build_index(writer, replace(SETTINGS, kind="ivfPq"))

    for _ in range(2):
        with open_searcher(writer, SearchSettings(cache=tmp_path / "cache")) as searcher:
            (hits,) = searcher.search(vectors[5:6], 3)
            assert hits[0].row.id == "item-5"
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_index_smaller_than_k_gives_what_there_is() -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(3), vectors=clustered(3, DIM)))
    build_index(writer, SETTINGS)

    assert len(found(writer, clustered(3, DIM)[0], k=10)) == 3
    assert len(found(writer, clustered(3, DIM)[0], k=10, exact=True)) == 3


def test_index_of_no_rows_finds_nothing() -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(2), vectors=clustered(2, DIM), failed=frozenset(ids(2))))

    report = build_index(writer, SETTINGS)

    assert (report.rows, report.dim) == (0, DIM)
    assert found(writer, clustered(1, DIM)[0]) == []
    assert found(writer, clustered(1, DIM)[0], exact=True) == []


def test_index_leaves_out_rows_without_direction() -> None:
    rows = clustered(4, DIM)
    rows[1] = 0
    rows[2, 3] = np.nan
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(4), vectors=rows))

    report = build_index(writer, SETTINGS)

    assert (report.rows, report.unusable) == (2, 2)
    assert set(found(writer, rows[0])) == {"item-0", "item-3"}


def test_index_of_half_precision_rows_finds_them() -> None:
    rows = clustered(50, DIM)
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(50), vectors=rows.astype(np.float16)))
    build_index(writer, SETTINGS)

    assert found(writer, rows[11], k=1) == ["item-11"]


def test_index_rows_that_are_not_normalised_are_compared_by_direction() -> None:
    rows = clustered(50, DIM)
    writer = make_writer()
    write_vectors(
        writer.store, MadePart(ids=ids(50), vectors=rows * np.linspace(0.1, 90, 50, dtype=np.float32)[:, None])
    )
    build_index(writer, SETTINGS)

    assert found(writer, rows[2], k=1) == ["item-2"] == found(writer, rows[2], k=1, exact=True)


def test_index_of_a_second_run_is_added_to(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(1000), vectors=vectors[:1000]))
    build_index(writer, replace(SETTINGS, kind="ivfPq"))
    first = read_manifest(writer)
    write_vectors(writer.store, MadePart(ids=ids(200, 1000), vectors=vectors[1000:1200], seq=2))

    report = build_index(writer, replace(SETTINGS, run="00000002-abcdef01", attempt="a2", kind="ivfPq"))

    second = read_manifest(writer)
    assert first is not None and second is not None
    assert (report.action, report.rows, report.added, report.dead) == ("Added", 1200, 200, 0)
    assert [each.rows for each in second.vectors] == [1000, 200]
    assert second.vectors[0] == first.vectors[0]
    assert found(writer, vectors[1100], k=1) == ["item-1100"]
    assert found(writer, vectors[100], k=1) == ["item-100"]


def test_index_forgets_items_that_left_the_source_or_were_replaced(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(1000), vectors=vectors[:1000]))
    build_index(writer, replace(SETTINGS, kind="ivfPq"))
    write_vectors(writer.store, MadePart(ids=["item-5", "item-6"], vectors=vectors[1000:1002], seq=2))
    states = dict.fromkeys(ids(1000), "succeeded") | {"item-7": "tombstone", "item-8": "failed"}
    write_item_index(writer.store, 2, states)

    report = build_index(writer, replace(SETTINGS, run="00000002-abcdef01", attempt="a2", kind="ivfPq"))

    assert (report.action, report.rows, report.added, report.dead) == ("Added", 1002, 2, 4)
    for exact in (False, True):
        assert found(writer, vectors[1000], k=1, exact=exact) == ["item-5"]
        gone = found(writer, vectors[7], k=20, exact=exact) + found(writer, vectors[8], k=20, exact=exact)
        assert {"item-7", "item-8"}.isdisjoint(gone)
    with open_searcher(writer, SearchSettings()) as searcher:
        assert searcher.count == 998
        assert searcher.vector_of("item-7") is None
        assert searcher.vector_of("item-5") == pytest.approx(vectors[1000], abs=1e-3)


def test_index_with_a_fifth_of_its_rows_dead_is_built_anew(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(1000), vectors=vectors[:1000]))
    build_index(writer, replace(SETTINGS, kind="ivfPq"))
    write_vectors(writer.store, MadePart(ids=ids(300), vectors=vectors[1000:1300], seq=2))

    report = build_index(writer, replace(SETTINGS, run="00000002-abcdef01", attempt="a2", kind="ivfPq"))

    assert (report.action, report.rows, report.dead) == ("Built", 1000, 0)
    assert found(writer, vectors[1010], k=1) == ["item-10"]


def test_index_that_outgrew_its_training_is_built_anew(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(400), vectors=vectors[:400]))
    build_index(writer, replace(SETTINGS, kind="ivfPq"))
    write_vectors(writer.store, MadePart(ids=ids(900, 400), vectors=vectors[400:1300], seq=2))

    report = build_index(writer, replace(SETTINGS, run="00000002-abcdef01", attempt="a2", kind="ivfPq"))

    assert (report.action, report.trained_rows) == ("Built", 1300)


def test_index_of_books_forgets_pages_of_an_older_edition() -> None:
    rows = clustered(7, DIM)
    writer = make_writer()
    first = MadePart(ids=["b/1", "b/2", "b/3", "c/1"], vectors=rows[:4], columns={"book": ["b", "b", "b", "c"]})
    write_vectors(writer.store, first)
    write_vectors(writer.store, MadePart(ids=["b/1", "b/2"], vectors=rows[4:6], seq=2, columns={"book": ["b", "b"]}))
    write_item_index(writer.store, 2, {"b": "succeeded", "c": "succeeded"})

    report = build_index(writer, replace(SETTINGS, run="00000002-abcdef01"))

    assert report.rows == 3
    assert set(found(writer, rows[0], k=9)) == {"b/1", "b/2", "c/1"}


def test_index_leaves_out_rows_of_another_fingerprint(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(10), vectors=vectors[:10], fingerprint="0" * 64))
    write_vectors(writer.store, MadePart(ids=ids(10, 10), vectors=vectors[10:20], seq=2))

    report = build_index(writer, replace(SETTINGS, run="00000002-abcdef01"))

    assert (report.rows, report.left_out) == (10, 1)
    assert "item-0" not in found(writer, vectors[0], k=20)


def test_index_of_an_older_run_is_not_shown(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(10), vectors=vectors[:10], seq=2))
    build_index(writer, replace(SETTINGS, run="00000002-abcdef01"))
    before = writer.store.get(MANIFEST_KEY).data

    report = build_index(writer, replace(SETTINGS, attempt="late"))

    assert report.run == "00000002-abcdef01"
    assert writer.store.get(MANIFEST_KEY).data == before


def test_index_older_than_the_dataset_is_searched_with_a_note(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(10), vectors=vectors[:10]))
    build_index(writer, SETTINGS)
    write_vectors(writer.store, MadePart(ids=ids(10, 10), vectors=vectors[10:20], seq=2))

    with open_searcher(writer, SearchSettings()) as searcher:
        assert "--exact" in searcher.notes[0]


def test_index_of_another_fingerprint_than_the_newest_rows_is_refused(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(10), vectors=vectors[:10], fingerprint="0" * 64))
    build_index(writer, SETTINGS)
    write_vectors(writer.store, MadePart(ids=ids(10), vectors=vectors[:10], seq=2))

    with (
        pytest.raises(IntegrityError, match="fingerprint 000000000000") as caught,
        open_searcher(writer, SearchSettings()),
    ):
        pass

    assert "--exact" in caught.value.advice
    assert found(writer, vectors[3], k=1, exact=True) == ["item-3"]


def test_index_objects_that_nothing_needs_are_swept_one_index_later(vectors: np.ndarray) -> None:
    writer = make_writer()
    versions = []
    for seq in (1, 2, 3):
        write_vectors(writer.store, MadePart(ids=ids(20), vectors=vectors[seq * 20 : seq * 20 + 20], seq=seq))
        build_index(writer, replace(SETTINGS, run=f"{seq:08d}-abcdef01", attempt=f"a{seq}"))
        versions.append(read_manifest(writer))

    there = {info.key for info in writer.store.list("index/")}
    assert there == {MANIFEST_KEY, REPORT_KEY} | versions[1].object_keys() | versions[2].object_keys()


class _Killed(Exception):
    """The process ends here."""


class _DyingStore(MemoryStore):
    """Dies instead of the write number `fatal`."""

    fatal = 1 << 30
    writes = 0

    def _count(self) -> None:
        self.writes += 1
        if self.writes >= self.fatal:
            raise _Killed

    def put(self, *args: object, **options: object) -> str:  # type: ignore[override]
        self._count()
        return super().put(*args, **options)  # type: ignore[arg-type]

    def put_if_absent(self, *args: object, **options: object) -> str | None:  # type: ignore[override]
        self._count()
        return super().put_if_absent(*args, **options)  # type: ignore[arg-type]

    def put_if_match(self, *args: object, **options: object) -> str | None:  # type: ignore[override]
        self._count()
        return super().put_if_match(*args, **options)  # type: ignore[arg-type]

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


def test_index_killed_at_any_write_leaves_the_old_or_the_new_one(vectors: np.ndarray) -> None:
    outcomes = set()
    for fatal in range(1, 12):
        store = _DyingStore()
        writer = make_writer(store)
        write_vectors(store, MadePart(ids=ids(300), vectors=vectors[:300]))
        build_index(writer, replace(SETTINGS, kind="hnsw"))
        write_vectors(store, MadePart(ids=ids(30, 300), vectors=vectors[300:330], seq=2))
        store.writes, store.fatal = 0, fatal
        second = replace(SETTINGS, run="00000002-abcdef01", attempt="a2", kind="hnsw")
        try:
            build_index(writer, second)
        except _Killed:
            outcomes.add("killed")
        store.fatal = 1 << 30

        there = found(writer, vectors[310], k=1)
        assert there == ["item-310"] or read_manifest(writer).seq == 1  # type: ignore[union-attr]
        outcomes.add("new" if there == ["item-310"] else "old")

        build_index(writer, replace(second, attempt="a3"))
        assert found(writer, vectors[310], k=1) == ["item-310"]
        assert json.loads(store.get(REPORT_KEY).data)["rows"] == 330
    assert outcomes == {"killed", "old", "new"}


def test_index_damaged_on_disk_says_what_to_do(vectors: np.ndarray, tmp_path: Path) -> None:
    writer = make_writer(FolderStore(tmp_path, fsync=False))
    write_vectors(writer.store, MadePart(ids=ids(20), vectors=vectors[:20]))
    build_index(writer, SETTINGS)
    manifest = read_manifest(writer)
    assert manifest is not None
    writer.store.put(manifest.index.key, b"no index")

    with pytest.raises(IntegrityError, match="cannot be read") as caught, open_searcher(writer, SearchSettings()):
        pass

    assert "anew" in caught.value.advice


def test_index_of_a_run_without_a_success_keeps_the_rows_of_earlier_ones(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(10), vectors=vectors[:10]))
    key = write_vectors(writer.store, MadePart(ids=["bad"], vectors=vectors[:1], seq=2, failed=frozenset({"bad"})))
    table = pq.read_table(pa.BufferReader(writer.store.get(key).data)).drop_columns(["embedding"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    writer.store.put(key, sink.getvalue().to_pybytes())

    report = build_index(writer, replace(SETTINGS, run="00000002-abcdef01"))

    assert report.rows == 10
    assert found(writer, vectors[4], k=1) == ["item-4"]


def test_index_of_no_dataset_is_refused_with_what_to_do() -> None:
    with pytest.raises(ObjectNotFoundError, match="holds no dataset"):
        build_index(make_writer(), SETTINGS)


def test_index_of_a_dataset_without_vectors_names_the_columns_there_are(vectors: np.ndarray) -> None:
    writer = make_writer()
    write_vectors(writer.store, MadePart(ids=ids(5), vectors=vectors[:5]))

    with pytest.raises(InvalidSpecError, match="text_embedding") as caught:
        build_index(writer, replace(SETTINGS, column="text_embedding"))

    assert "embedding" in caught.value.advice


def test_manifest_survives_a_round_trip(built: dict[str, Writer]) -> None:
    manifest = read_manifest(built["ivfPq"])
    assert manifest is not None

    assert IndexManifest.from_bytes(manifest.to_bytes(), "x") == manifest


@pytest.mark.parametrize(
    ("kind", "rows", "want"),
    [
        ("auto", 100, "flat"),
        ("auto", FLAT_MAX_NUMBERS // 512, "flat"),
        ("auto", FLAT_MAX_NUMBERS // 512 + 1, "ivfPq"),
        ("ivfPq", 100, "flat"),
        ("ivfPq", 1000, "ivfPq"),
        ("hnsw", 100, "hnsw"),
        ("flat", 10**7, "flat"),
    ],
)
def test_shape_is_chosen_by_rows_and_wish(kind: str, rows: int, want: str) -> None:
    assert choose_shape(kind, rows, 512) == want  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "want"), [(1000, 64), (1_000_000, 2048), (10**9, 16_384)])
def test_lists_of_a_compressed_index_follow_the_root_of_its_rows(rows: int, want: int) -> None:
    assert list_count(rows) == want


def test_training_sample_is_bounded_in_bytes() -> None:
    assert sample_rows(10**9, 4096) * 4096 * 4 <= 512 << 20
    assert sample_rows(5000, 64) == 5000


def test_store_that_fails_while_searching_is_not_taken_for_a_damaged_index(vectors: np.ndarray) -> None:
    class _Down(MemoryStore):
        is_down = False

        def get_range(self, *args: object, **options: object) -> bytes:  # type: ignore[override]
            if self.is_down:
                raise StoreUnavailableError("no answer")
            return super().get_range(*args, **options)  # type: ignore[arg-type]

    store = _Down()
    writer = make_writer(store)
    write_vectors(store, MadePart(ids=ids(20), vectors=vectors[:20]))
    build_index(writer, SETTINGS)

    with open_searcher(writer, SearchSettings()) as searcher:
        store.is_down = True
        with pytest.raises(StoreUnavailableError):
            searcher.search(vectors[:1], 3)
