"""One pass from a source to tables: counts, pages of files, limits, changes under the planner, incremental runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from pagemill_core.errors import (
    FetchFailed,
    ImageMissing,
    IntegrityError,
    ItemError,
    SourceError,
    StoreUnavailableError,
)
from pagemill_core.storage.memory import MemoryStore
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.plan import expand, planner, rows, source_bytes
from pagemill_worker.plan.digests import identity_digest
from pagemill_worker.plan.expand import FilePageCounter, Pages
from pagemill_worker.plan.known import ITEM_INDEX_SCHEMA, IndexObject, KnownItems, KnownRules
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import (
    CutOptions,
    ImagesRequest,
    ItemsRequest,
    KeyRules,
    ManifestRequest,
    PlanRequest,
    SourceRequest,
)

KEYS = KeyRules(prefix="ocr_results", suffixes=("_ocr.json",))
MANIFEST = ManifestRequest(uri="memory://lib/m.csv", path_prefix="memory://lib/pages")
DEFAULT_CUT = CutOptions()
HEADER = "canonical_id,absolute_image_path\n"


class Bench:
    """A planner with everything in memory; `plan` runs it, `items` reads back what it wrote."""

    def __init__(self, scratch: Path) -> None:
        self.store = MemoryStore("lib")
        self.scratch = scratch
        self.known: KnownItems | None = None
        self.count_pages: Callable[[str], Pages] = FilePageCounter(lambda _: self.store)
        self.progress: list[int] = []

    def plan(
        self, source: SourceRequest = MANIFEST, cut: CutOptions = DEFAULT_CUT, max_items: int | None = None
    ) -> PlanResult:
        tools = PlanTools(
            open_store=lambda _: self.store,
            count_pages=self.count_pages,
            store=self.store,
            prefix="plan/x/",
            scratch=self.scratch,
            known=self.known,
            on_progress=self.progress.append,
        )
        return plan_source(PlanRequest(source=source, keys=KEYS, cut=cut, max_items=max_items), tools)

    def manifest(self, *lines: str) -> None:
        self.store.put("m.csv", (HEADER + "".join(f"{line}\n" for line in lines)).encode())

    def items(self, result: PlanResult) -> list[PlannedItem]:
        return [item for _, item in ShardReader(self.store, result.parts).all_items()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def pdf(pages: int) -> bytes:
    sink = io.BytesIO()
    canvas = Canvas(sink)
    for number in range(pages):
        canvas.drawString(100, 100, f"page {number}")
        canvas.showPage()
    canvas.save()
    return sink.getvalue()


def tiff(pages: int) -> bytes:
    sink = io.BytesIO()
    pictures = [Image.new("L", (20, 20), number) for number in range(pages)]
    pictures[0].save(sink, "TIFF", save_all=True, append_images=pictures[1:])
    return sink.getvalue()


def test_plan_manifest_becomes_items_with_counts(bench: Bench) -> None:
    bench.manifest("a,1.png", "b/c,s3://other/2.png", "a,1.png", "a,9.png", "../x,3.png", ",4.png", "d,")
    result = bench.plan()
    want = [
        ("a", "memory://lib/pages/1.png", None),
        ("b/c", "s3://other/2.png", None),
        ("a", "memory://lib/pages/9.png", "DuplicateId"),
        ("../x", "memory://lib/pages/3.png", "UnsafeId"),
        ("", "memory://lib/pages/4.png", "UnsafeId"),
        ("d", "", "ImageMissing"),
    ]
    got = [(item.id, item.uri, item.failure and item.failure.error_class) for item in bench.items(result)]
    assert got == want
    assert (result.items, result.failed, result.repeats) == (6, 4, 1)
    assert result.failure_classes == {"DuplicateId": 1, "UnsafeId": 2, "ImageMissing": 1}
    assert [sample[:2] for sample in result.failure_samples] == [
        ("a", "DuplicateId"),
        ("../x", "UnsafeId"),
        ("", "UnsafeId"),
    ]
    assert result.warnings == (
        "1 row repeats an earlier id and path, planned once each (first: line 4)",
        "4 items cannot be done as the source names them: UnsafeId 2, DuplicateId 1, ImageMissing 1",
    )
    assert result.source_version == bench.store.head("m.csv").token  # type: ignore[union-attr]
    assert bench.progress == [6]
    assert not list(bench.scratch.iterdir())


@pytest.mark.parametrize(
    "source", [MANIFEST, ImagesRequest(uri="memory://lib/none"), ItemsRequest(items=(), uri="run 1")]
)
def test_plan_empty_source_has_no_items_and_says_so(source: SourceRequest, bench: Bench) -> None:
    bench.manifest()
    result = bench.plan(source)
    assert (result.items, result.shards, result.parts) == (0, 0, ())
    assert result.warnings == (f"{source.uri} holds no item",)


def test_plan_small_source_is_cut_for_the_slots(bench: Bench) -> None:
    bench.manifest(*(f"p{number},{number}.png" for number in range(40)))
    result = bench.plan(cut=CutOptions(seconds_per_item=1, slots=2))
    sizes = list(ShardReader(bench.store, result.parts).shard_sizes(0).values())
    assert sizes == [1, 2, 4, 5, 5, 5, 5, 5, 5, 3]
    assert result.shards == 10


def test_plan_images_of_a_prefix_carry_size_and_version(bench: Bench) -> None:
    bench.store.put("in/b.png", b"bb")
    bench.store.put("in/a.jpg", b"a")
    bench.store.put("in/a.png", b"aaa")
    result = bench.plan(ImagesRequest(uri="memory://lib/in"))
    items = bench.items(result)
    assert [(item.id, item.size_bytes) for item in items] == [("a", 1), ("a", 3), ("b", 2)]
    assert items[0].version == bench.store.head("in/a.jpg").token  # type: ignore[union-attr]
    assert items[1].failure == ItemFailure("DuplicateId", "file 2 has the id 'a' of file 1, with another path")
    assert (result.size_bytes, result.sized_items) == (6, 3)


def test_plan_pdf_and_tiff_become_one_item_a_page(bench: Bench) -> None:
    for name, data in (("d.PDF", pdf(3)), ("one.pdf", pdf(1)), ("t.tiff", tiff(2)), ("one.tif", tiff(1))):
        bench.store.put(f"pages/{name}", data)
    bench.manifest("before,0.png", "doc,d.PDF", "one,one.pdf", "t,t.tiff", "single,one.tif", "after,9.png")
    items = bench.items(bench.plan())
    assert [(item.id, item.page) for item in items] == [
        ("before", None),
        ("doc#p0001", 0),
        ("doc#p0002", 1),
        ("doc#p0003", 2),
        ("one#p0001", 0),
        ("t#p0001", 0),
        ("t#p0002", 1),
        ("single", None),
        ("after", None),
    ]
    assert {item.uri for item in items[1:4]} == {"memory://lib/pages/d.PDF"}
    info = bench.store.head("pages/d.PDF")
    assert info is not None
    assert (items[1].size_bytes, items[1].version) == (info.size, info.token)


def test_plan_file_whose_pages_cannot_be_counted_is_one_failed_item(bench: Bench, tmp_path: Path) -> None:
    bench.store.put("pages/bad.pdf", pdf(3)[:300])
    bench.manifest("bad,bad.pdf", "gone,gone.pdf", f"local,{tmp_path}/none.tif", "url,https://h/x.pdf", "ok,a.png")
    items = bench.items(bench.plan())
    assert [item.id for item in items] == ["bad", "gone", "local", "url", "ok"]
    classes = [item.failure.error_class if item.failure else "" for item in items]
    assert classes[1:] == ["ImageMissing", "ImageMissing", "FetchFailed", ""]
    assert classes[0] in {"ImageTruncated", "NotAnImage", "ImageUnsupported"}


def test_plan_pages_behind_urls_are_counted_by_who_can_fetch(bench: Bench) -> None:
    bench.count_pages = FilePageCounter(lambda _: bench.store, {"https://h/x.pdf?a=b.png": pdf(2)}.__getitem__)
    bench.manifest("url,https://h/x.pdf?a=b.png")
    assert [item.id for item in bench.items(bench.plan())] == ["url#p0001", "url#p0002"]


@pytest.mark.parametrize("count", [0, expand.MAX_PAGES + 1])
def test_plan_absurd_page_counts_fail_as_one_item(count: int, bench: Bench) -> None:
    bench.count_pages = lambda _: Pages(count)
    bench.manifest("d,d.pdf")
    [item] = bench.items(bench.plan())
    assert (item.id, item.failure and item.failure.error_class) == ("d", "ImageTooLarge" if count else "NotAnImage")


def test_plan_thousands_of_pages_of_many_files_keep_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "_COUNTED_AT_ONCE", 3)
    monkeypatch.setattr(expand, "BATCH_ROWS", 5)

    def count(uri: str) -> Pages:
        number = int(uri.rpartition("/")[2].removesuffix(".pdf"))
        if number % 5 == 3:
            raise ImageMissing("gone")
        return Pages(number % 5 + 1)

    bench.count_pages = count
    bench.manifest(*(f"d{number},{number}.{'pdf' if number % 3 else 'png'}" for number in range(60)))
    want: list[str] = []
    for number in range(60):
        is_one = number % 3 == 0 or number % 5 == 3
        want += [f"d{number}"] if is_one else [f"d{number}#p{page:04d}" for page in range(1, number % 5 + 2)]
    assert [item.id for item in bench.items(bench.plan())] == want


def test_plan_store_that_is_down_ends_the_planning_not_the_item(bench: Bench) -> None:
    def count(uri: str) -> Pages:
        raise StoreUnavailableError("down")

    bench.count_pages = count
    bench.manifest("d,d.pdf")
    with pytest.raises(StoreUnavailableError):
        bench.plan()


@pytest.mark.parametrize("error", [ImageMissing("x"), FetchFailed("y")])
def test_plan_item_errors_of_counting_stay_with_the_item(error: ItemError, bench: Bench) -> None:
    def count(uri: str) -> Pages:
        raise error

    bench.count_pages = count
    bench.manifest("d,d.pdf")
    assert [item.failure for item in bench.items(bench.plan())] == [ItemFailure.of(error)]


@pytest.mark.parametrize(("limit", "want"), [(1, 1), (3, 3), (4, 4), (5, 4)])
def test_plan_max_items_keeps_the_first_items(limit: int, want: int, bench: Bench) -> None:
    bench.manifest("a,1", "a,1", "b,2", "../x,3", "d,4")
    items = bench.items(bench.plan(max_items=limit))
    assert [item.id for item in items] == ["a", "b", "../x", "d"][:want]


def test_plan_max_items_stops_reading_a_long_source(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_bytes, "BLOCK_BYTES", 4096)
    bench.manifest(*(f"p{number},{number}.png" for number in range(60_000)))
    bench.store.put("m.csv", bench.store.get("m.csv").data + b"ragged\n")
    assert bench.plan(max_items=10).items == 10
    with pytest.raises(SourceError, match="line 60002"):
        bench.plan()


class ChangingStore(MemoryStore):
    """The manifest is written anew when its third block is read."""

    reads = 0

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        self.reads += key == "m.csv"
        if self.reads == 3:
            self.put(key, self.get(key).data + b"z,z\n")
        return super().get_range(key, start, length, if_match=if_match)


def test_plan_source_that_changes_under_the_planner_is_never_planned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_bytes, "BLOCK_BYTES", 4096)
    bench.store = ChangingStore("lib")
    bench.manifest(*(f"p{number},{number}.png" for number in range(2_000)))
    with pytest.raises(SourceError, match="changed while being read"):
        bench.plan()
    assert not list(bench.scratch.iterdir())


def test_plan_stopped_by_its_caller_leaves_no_file(bench: Bench) -> None:
    class Stop(Exception):
        pass

    def stop(_: int) -> None:
        raise Stop

    bench.progress = type("Progress", (), {"append": staticmethod(stop)})()  # type: ignore[assignment]
    bench.manifest("a,1")
    with pytest.raises(Stop):
        bench.plan()
    assert not list(bench.scratch.iterdir())


def test_plan_retry_of_items_keeps_pages_and_columns(bench: Bench) -> None:
    failed = [
        PlannedItem(7, "d#p0002", "s3://b/d.pdf", 1, 10, "v1", {"n": 1}, ItemFailure("UnsafeId", "old")),
        PlannedItem(9, "e", "s3://b/e.pdf", None),
    ]
    bench.count_pages = lambda _: Pages(2)
    items = bench.items(bench.plan(ItemsRequest(items=failed, uri="run 1")))
    assert items[0] == PlannedItem(0, "d#p0002", "s3://b/d.pdf", 1, 10, "v1", {"n": 1})
    assert [item.id for item in items[1:]] == ["e#p0001", "e#p0002"]


def test_plan_same_source_gives_the_same_tables(bench: Bench) -> None:
    bench.manifest(*(f"p{number},{number}.png" for number in range(5_000)))
    assert bench.plan().parts == bench.plan().parts


def index_of(
    entries: list[tuple[str, str | None, str, str, int]], store: MemoryStore, parts: int = 2
) -> list[IndexObject]:
    """An item index as finalize folds it: (id, version, fingerprint, status, failed_runs), in objects, by digest."""
    table = sorted((identity_digest(entry[0]), *entry) for entry in entries)
    objects: list[IndexObject] = []
    step = max(1, -(-len(table) // parts))
    for number, start in enumerate(range(0, max(1, len(table)), step)):
        columns = list(zip(*table[start : start + step], strict=True)) or [[] for _ in ITEM_INDEX_SCHEMA]
        sink = io.BytesIO()
        arrays = [pa.array(column, field.type) for column, field in zip(columns, ITEM_INDEX_SCHEMA, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=ITEM_INDEX_SCHEMA), sink)
        key = f"index/{number}.parquet"
        store.put(key, sink.getvalue())
        objects.append(IndexObject(key, len(sink.getvalue())))
    return objects


def versioned(bench: Bench, *names: str) -> dict[str, str]:
    return {name: bench.store.put(f"in/{name}.png", name.encode()) for name in names}


def test_plan_incremental_leaves_out_what_is_done_and_unchanged(bench: Bench) -> None:
    version = versioned(bench, "done", "changed", "otherprint", "failed", "hopeless", "noversion", "new", "buried")
    index = [
        ("done", version["done"], "F", "succeeded", 0),
        ("changed", "older", "F", "succeeded", 0),
        ("otherprint", version["otherprint"], "G", "succeeded", 0),
        ("failed", version["failed"], "F", "failed", 2),
        ("hopeless", version["hopeless"], "F", "failed", 3),
        ("noversion", None, "F", "succeeded", 0),
        ("buried", version["buried"], "F", "tombstone", 0),
        ("gone", "v", "F", "succeeded", 0),
        ("gone too", "v", "G", "failed", 0),
        ("long gone", "v", "F", "tombstone", 0),
    ]
    bench.known = KnownItems.load(bench.store, index_of(index, bench.store), KnownRules("F", 2), bench.scratch)
    result = bench.plan(ImagesRequest(uri="memory://lib/in"))
    assert [item.id for item in bench.items(result)] == [
        "buried",
        "changed",
        "failed",
        "new",
        "noversion",
        "otherprint",
    ]
    assert (result.already_done, result.given_up, result.tombstones) == (1, 1, 2)
    table = pq.read_table(pa.BufferReader(bench.store.get(f"plan/x/{planner.TOMBSTONES}").data))
    assert sorted(table["id"].to_pylist()) == ["gone", "gone too"]
    assert table["identity"].to_pylist() == [identity_digest(item_id) for item_id in table["id"].to_pylist()]


def test_plan_incremental_with_nothing_new_has_no_items_and_no_warning(bench: Bench) -> None:
    version = versioned(bench, "a", "b")
    index = [(name, token, "F", "succeeded", 0) for name, token in version.items()]
    bench.known = KnownItems.load(bench.store, index_of(index, bench.store), KnownRules("F"), bench.scratch)
    result = bench.plan(ImagesRequest(uri="memory://lib/in"))
    assert (result.items, result.shards, result.already_done, result.warnings) == (0, 0, 2, ())
    assert bench.store.head(f"plan/x/{planner.TOMBSTONES}") is None


def test_plan_incremental_trial_run_buries_nobody(bench: Bench) -> None:
    versioned(bench, "a", "b", "c")
    index = [("gone", "v", "F", "succeeded", 0), ("c", "v", "F", "succeeded", 0)]
    bench.known = KnownItems.load(bench.store, index_of(index, bench.store), KnownRules("F"), bench.scratch)
    assert bench.plan(ImagesRequest(uri="memory://lib/in"), max_items=1).tombstones == 0


def test_plan_incremental_without_versions_plans_everything_again(bench: Bench) -> None:
    bench.manifest("a,1.png", "b,2.png")
    index = [("a", None, "F", "succeeded", 0), ("b", "v", "F", "succeeded", 0)]
    bench.known = KnownItems.load(bench.store, index_of(index, bench.store), KnownRules("F"), bench.scratch)
    assert bench.plan().items == 2


def test_known_items_of_an_empty_index_subtract_nothing(bench: Bench) -> None:
    bench.manifest("a,1.png")
    bench.known = KnownItems.load(bench.store, index_of([], bench.store), KnownRules("F"), bench.scratch)
    assert (len(bench.known), bench.plan().items) == (0, 1)


def test_known_items_larger_than_memory_lie_on_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagemill_worker.plan.known.IN_MEMORY_ROWS", 100)
    version = versioned(bench, *(f"p{number}" for number in range(500)))
    index = [(name, token, "F", "succeeded", 0) for name, token in version.items() if name != "p77"]
    objects = index_of(index, bench.store, parts=7)
    bench.known = KnownItems.load(bench.store, objects, KnownRules("F"), bench.scratch)
    assert [item.id for item in bench.items(bench.plan(ImagesRequest(uri="memory://lib/in")))] == ["p77"]


def test_known_items_of_a_damaged_index_are_refused(bench: Bench) -> None:
    objects = index_of([(str(number), "v", "F", "succeeded", 0) for number in range(50)], bench.store, parts=2)
    with pytest.raises(IntegrityError, match="not sorted"):
        KnownItems.load(bench.store, objects[::-1], KnownRules("F"), bench.scratch)
    bench.store.put("index/0.parquet", b"PAR1 no")
    with pytest.raises(IntegrityError, match="not an item index"):
        KnownItems.load(bench.store, [IndexObject("index/0.parquet", 7)], KnownRules("F"), bench.scratch)


def test_candidates_batches_are_the_size_that_the_planner_counts_on() -> None:
    assert rows.BATCH_ROWS == planner.BATCH_ROWS == expand.BATCH_ROWS


def test_plan_reads_a_source_of_items_lazily(bench: Bench) -> None:
    def endless() -> Iterator[PlannedItem]:
        number = 0
        while True:
            yield PlannedItem(number, f"p{number}", f"s3://b/{number}.png")
            number += 1

    assert bench.plan(ItemsRequest(items=endless()), max_items=100).items == 100
