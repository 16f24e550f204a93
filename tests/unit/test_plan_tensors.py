"""Partitions of tensors: row counts without torch, ranks as the deal says, exact cover; nothing in a file can run."""

from __future__ import annotations

import io
import os
import pickle
import random
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from pagemill_core.errors import SourceError
from pagemill_core.storage.memory import MemoryStore
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.planner import PlanResult, PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import KeyRules, PlanRequest, TensorsRequest
from pagemill_worker.plan.tensor_files import partition_rows

IMAGES, VALUES = torch.zeros(7, 5, 4), torch.zeros(7, dtype=torch.float64)


class Bytes:
    """A file in memory that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)
        self.read_bytes = 0

    def read(self, start: int, length: int) -> bytes:
        found = self.data[start : start + length]
        self.read_bytes += len(found)
        return found


def saved(value: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    torch.save(value, sink, **options)
    return sink.getvalue()


def planned(request: TensorsRequest, scratch: Path, store: MemoryStore) -> tuple[PlanResult, list[PlannedItem]]:
    scratch.mkdir(exist_ok=True)
    tools = PlanTools(
        open_store=lambda _: store,
        count_pages=lambda uri: pytest.fail(f"counts the pages of {uri}"),
        store=store,
        prefix="plan/x/",
        scratch=scratch,
    )
    result = plan_source(PlanRequest(source=request, keys=KeyRules(are_keys=False)), tools)
    return result, [item for _, item in ShardReader(store, result.parts).all_items()]


@pytest.mark.parametrize(
    "value",
    [
        IMAGES,
        IMAGES.half()[:, 1:],
        torch.nn.Parameter(IMAGES),
        (IMAGES, VALUES),
        [IMAGES.to(torch.bfloat16)],
        {"image": IMAGES, "z": VALUES},
        OrderedDict(image=IMAGES),
        TensorDataset(IMAGES, VALUES),
    ],
    ids=["tensor", "view", "parameter", "tuple", "list", "dict", "ordered", "dataset"],
)
def test_tensor_rows_are_told_without_torch(value: Any) -> None:
    assert partition_rows(Bytes(saved(value))) == 7


def test_tensor_rows_of_a_large_partition_cost_two_small_reads() -> None:
    source = Bytes(saved(torch.zeros(1000, 1000)))
    assert partition_rows(source) == 1000
    assert source.read_bytes <= 2 * 32 * 1024


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def test_tensor_rows_of_strange_files_are_not_told_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = saved(IMAGES)
    strange = [
        b"",
        b"PK\x03\x04",
        good[: len(good) // 2],
        saved(IMAGES, _use_new_zipfile_serialization=False),
        saved((IMAGES, torch.zeros(6))),
        saved(torch.tensor(1.0)),
        saved({"image": IMAGES, "name": "x"}),
        saved({}),
        pickle.dumps(_Evil()),
    ]
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Evil()))
    strange.append(sink.getvalue())
    assert [partition_rows(Bytes(data)) for data in strange] == [None] * len(strange)
    assert not (tmp_path / "evil").exists()


def test_tensor_partitions_are_cut_into_row_ranges_that_cover_them(tmp_path: Path) -> None:
    store = MemoryStore("lib")
    for name, rows in (("1", 7), ("10", 4), ("2", 9), ("old", 0)):
        data = saved(torch.zeros(rows, 2), _use_new_zipfile_serialization=name != "old")
        store.put(f"p/{name}.pt", data)
    store.put("p/readme.txt", b"x")
    request = TensorsRequest(uri="memory://lib/p", rows_per_item=4, world_size=2)
    _, items = planned(request, tmp_path, store)
    assert [(item.id, item.input.get("start"), item.input.get("stop"), item.input["rank"]) for item in items] == [
        ("1#000000000", 0, 4, 0),
        ("1#000000004", 4, 7, 0),
        ("10#000000000", 0, 4, 0),
        ("2#000000000", 0, 4, 1),
        ("2#000000004", 4, 8, 1),
        ("2#000000008", 8, 9, 1),
        ("old", None, None, 1),
    ]
    assert {(item.input["partitions"], item.input["worldSize"]) for item in items} == {(4, 2)}
    natural = TensorsRequest(uri="memory://lib/p", order="natural", pattern="[0-9]*.pt")
    _, whole = planned(natural, tmp_path, store)
    assert [(item.id, item.input["rank"]) for item in whole] == [("1", 0), ("2", 1), ("10", 2)]


def test_tensor_folder_without_partitions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no file that matches '\*\.pt'") as caught:
        planned(TensorsRequest(uri=str(tmp_path)), tmp_path / "scratch", MemoryStore("out"))
    assert caught.value.advice


@pytest.mark.parametrize("world", [1, 7, 130, 10_000, 12_000])
def test_tensor_ten_thousand_partitions_are_planned_in_seconds(tmp_path: Path, world: int) -> None:
    root = tmp_path / "p"
    root.mkdir()
    (root / "0.pt").write_bytes(saved(torch.zeros(3, 2)))
    for number in range(1, 10_000):
        os.link(root / "0.pt", root / f"{number}.pt")
    started = time.process_time()
    request = TensorsRequest(uri=str(root), rows_per_item=4096 if world == 130 else None, world_size=world)
    result, items = planned(request, tmp_path / "scratch", MemoryStore("out"))
    assert time.process_time() - started < 10
    assert result.items == 10_000
    shares: dict[int, int] = {}
    for item in items:
        rank = item.input["rank"]
        assert isinstance(rank, int)
        shares[rank] = shares.get(rank, 0) + 1
    assert sorted(shares) == list(range(min(world, 10_000)))
    assert max(shares.values()) - min(shares.values()) <= 1
    ranks = [int(str(item.input["rank"])) for item in items]
    assert ranks == sorted(ranks)


def test_tensor_files_with_any_damage_have_a_row_count_or_none() -> None:
    random.seed(3)
    whole = saved(TensorDataset(IMAGES, VALUES))
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(data))
            data[at : at + random.randint(1, 8)] = random.randbytes(random.randint(0, 8))
        rows = partition_rows(Bytes(bytes(data)))
        assert rows is None or rows >= 0
