"""One source planned from every kind of store into every kind of store gives the same plan."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from pagemill_core.errors import SourceError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan import source_bytes
from pagemill_worker.plan.expand import FilePageCounter, Pages
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import (
    CutOptions,
    ImagesRequest,
    KeyRules,
    ManifestRequest,
    PlanRequest,
    SourceRequest,
)
from pagemill_worker.plan.source_bytes import open_source

KINDS = ("memory", "folder", "s3")
NAMES = [f"vol {number // 10:02d}/p#{number} ê.png" for number in range(60)]


class Place:
    """A store of one kind with its URI, and how the planner opens it."""

    def __init__(self, kind: str, folder: Path, server: SeaweedServer) -> None:
        bucket = server.fresh_bucket() if kind == "s3" else "lib"
        self.store: ObjectStore
        if kind == "folder":
            self.store = FolderStore(folder)
            self.uri = str(folder)
        elif kind == "s3":
            self.store = server.store(bucket)
            self.uri = f"s3://{bucket}"
        else:
            self.store = MemoryStore(bucket)
            self.uri = f"memory://{bucket}"

    def open(self, root: str) -> ObjectStore:
        assert root.rstrip("/") == self.uri
        return self.store


@pytest.fixture
def place(tmp_path: Path, s3_server: SeaweedServer) -> Callable[[str], Place]:
    numbers = itertools.count()
    return lambda kind: Place(kind, tmp_path / f"{kind}-{next(numbers)}", s3_server)


def planned(source: SourceRequest, read: Place, write: Place, scratch: Path) -> tuple[PlanResult, list[PlannedItem]]:
    tools = PlanTools(
        open_store=read.open,
        count_pages=FilePageCounter(read.open),
        store=write.store,
        prefix=".pagemill/00000001-abcdef01/plan/x/",
        scratch=scratch,
    )
    scratch.mkdir(exist_ok=True)
    keys = KeyRules(prefix="ocr_results", suffixes=("_ocr.json",))
    result = plan_source(PlanRequest(source=source, keys=keys, cut=CutOptions(items_per_shard=7)), tools)
    return result, [item for _, item in ShardReader(write.store, result.parts).all_items()]


@pytest.mark.s3
@pytest.mark.parametrize(("reads", "writes"), list(itertools.product(KINDS, KINDS)))
def test_plan_manifest_gives_the_same_plan_from_and_to_every_store(
    reads: str, writes: str, place: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_bytes, "BLOCK_BYTES", 512)
    read, write = place(reads), place(writes)
    lines = [f'"{name[:-4]}","s3://pages/{name}",{number}\r\n' for number, name in enumerate(NAMES)]
    read.store.put("in/m.csv", ("\ufeffcanonical_id,absolute_image_path,n\r\n" + "".join(lines)).encode())
    result, items = planned(ManifestRequest(uri=f"{read.uri}/in/m.csv"), read, write, tmp_path / "scratch")
    assert items == [
        PlannedItem(number, name[:-4], f"s3://pages/{name}", columns={"n": str(number)})
        for number, name in enumerate(NAMES)
    ]
    assert (result.items, result.shards, len(result.parts)) == (60, 9, 1)
    reader = ShardReader(write.store, result.parts)
    reader.verify()
    assert reader.items(8) == items[56:]


@pytest.mark.s3
@pytest.mark.parametrize("kind", KINDS)
def test_plan_listing_gives_the_same_items_from_every_store(
    kind: str, place: Callable[[str], Place], tmp_path: Path
) -> None:
    read = place(kind)
    for name in [*NAMES, "vol 00/note.txt", "x/Thumbs.db"]:
        read.store.put(f"pages/{name}", name.encode())
    result, items = planned(ImagesRequest(uri=f"{read.uri}/pages/"), read, place("memory"), tmp_path / "scratch")
    assert [item.id for item in items] == sorted(name[:-4] for name in NAMES)
    assert [item.uri for item in items] == [f"{read.uri}/pages/{item.id}.png" for item in items]
    assert all(item.version and item.size_bytes == len(item.id.encode()) + 4 for item in items)
    assert result.sized_items == 60


@pytest.mark.s3
@pytest.mark.parametrize("kind", KINDS)
def test_plan_manifest_written_anew_while_read_is_refused(
    kind: str, place: Callable[[str], Place], tmp_path: Path
) -> None:
    read = place(kind)
    read.store.put("m.csv", b"canonical_id,absolute_image_path\n" * 50)
    with (
        pytest.raises(SourceError, match="changed while being read"),
        open_source(f"{read.uri}/m.csv", read.open) as source,
    ):
        source.read(0, 10)
        read.store.put("m.csv", b"canonical_id,absolute_image_path\n" * 50 + b"a,b\n")
        source.read(10, 10)


@pytest.mark.s3
@pytest.mark.parametrize("kind", KINDS)
def test_plan_pages_are_counted_in_every_store(kind: str, place: Callable[[str], Place]) -> None:
    read = place(kind)
    picture = b"\x89PNG\r\n\x1a\n" + b"x" * 100
    read.store.put("pages/not really.pdf", picture)
    pages = FilePageCounter(read.open)(f"{read.uri}/pages/not really.pdf")
    assert (pages.count, pages.size_bytes) == (1, len(picture))
    assert pages == Pages(1, len(picture), pages.version)
    assert pages.version
