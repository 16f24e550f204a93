"""Thumbnails of rows whose pictures lie in a tar: the row says which item of which plan, the plan says where."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagemill_cli.output.target import Target
from pagemill_cli.output.thumbnails import MAX_SIDE_PX, Thumbnails
from pagemill_cli.settings import CliSettings
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.open import open_store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import create_plan
from pagemill_core.work.records import PlanPointer, RunEntry
from pagemill_worker.embed.search.ids import RowFacts
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.planner import PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import CutOptions, DatasetRequest, KeyRules, PlanRequest

COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 10), (20, 200, 200)]


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (900, 600)) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", size, colour).save(sink, "JPEG")
    return sink.getvalue()


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Target, list[PlannedItem]]:
    """An output whose run planned a tar of five pictures, two items a shard."""
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "00000.tar", "w") as archive:
        for number, colour in enumerate(COLOURS):
            data = jpeg(colour)
            info = tarfile.TarInfo(f"{number:04d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    store = FolderStore(tmp_path / "out", fsync=False)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tools = PlanTools(
        open_store=open_store,
        count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
        store=store,
        prefix=".pagemill/00000001-abcdef01/plan/a1/",
        scratch=scratch,
    )
    request = PlanRequest(
        source=DatasetRequest(uri=str(tmp_path / "set")),
        keys=KeyRules(are_keys=False),
        cut=CutOptions(items_per_shard=2),
    )
    result = plan_source(request, tools)
    writer = Writer(store, SystemClock(), deadline_s=0)
    entry = RunEntry(seq=1, work_key="abcdef01" * 8, kind="EmbeddingJob", state="Finished")
    store.put(keys.run_entry(1), entry.to_bytes())
    pointer = PlanPointer(
        run="00000001-abcdef01",
        attempt="a1",
        kind="EmbeddingJob",
        work_key=entry.work_key,
        work={},
        fingerprint="f",
        fingerprint_fields={},
        items=result.items,
        shards=result.shards,
        parts=result.parts,
    )
    create_plan(writer, RunLayout(pointer.run), pointer)
    items = [item for _, item in ShardReader(store, result.parts).all_items()]
    return Target("out", writer, S3Settings(), CliSettings()), items


def facts(item: PlannedItem, **changes: object) -> RowFacts:
    given = {"id": item.id, "run": 1, "part": 0, "row": item.row, "source_uri": item.uri}
    return RowFacts(**{**given, **changes})  # type: ignore[arg-type]


def colour_of(picture: bytes | None) -> list[int]:
    assert picture is not None
    image = Image.open(io.BytesIO(picture))
    assert max(image.size) == MAX_SIDE_PX
    return [round(value, -1) for value in np.asarray(image).reshape(-1, 3).mean(axis=0).tolist()]


def test_thumbnails_of_members_of_a_tar_are_their_own_pictures(planned: tuple[Target, list[PlannedItem]]) -> None:
    target, items = planned

    small = Thumbnails(target).of([facts(item) for item in reversed(items)])

    assert [colour_of(each.picture) for each in small] == [[round(v, -1) for v in colour] for colour in COLOURS[::-1]]


def test_thumbnail_of_a_row_that_no_plan_knows_is_read_where_the_row_says(
    planned: tuple[Target, list[PlannedItem]], tmp_path: Path
) -> None:
    target, items = planned
    (tmp_path / "page.jpg").write_bytes(jpeg(COLOURS[0]))
    elsewhere = str(tmp_path / "page.jpg")

    rows = [
        facts(items[0], run=9, source_uri=elsewhere),
        facts(items[0], id="another item now", source_uri=elsewhere),
        facts(items[0], row=10_000, source_uri=elsewhere),
        facts(items[0], book="a book", source_uri=elsewhere),
    ]

    assert [colour_of(each.picture) for each in Thumbnails(target).of(rows)] == [[250, 10, 10]] * 4


def test_thumbnail_that_cannot_be_made_says_why(planned: tuple[Target, list[PlannedItem]], tmp_path: Path) -> None:
    target, items = planned
    (tmp_path / "text.jpg").write_bytes(b"no picture at all, but some words")
    rows = [
        facts(items[0], run=9, source_uri=str(tmp_path / "gone.jpg")),
        facts(items[0], run=9, source_uri=str(tmp_path / "text.jpg")),
        facts(items[0], run=9, source_uri="http://127.0.0.1:1/x.jpg"),
    ]

    small = Thumbnails(target).of(rows)

    assert [each.picture for each in small] == [None] * 3
    assert [each.why.partition(":")[0] for each in small] == ["ImageMissing", "NotAnImage", "ForbiddenAddress"]


def test_thumbnails_of_nothing_are_none(planned: tuple[Target, list[PlannedItem]]) -> None:
    assert Thumbnails(planned[0]).of([]) == []
