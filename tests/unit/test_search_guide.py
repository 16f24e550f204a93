"""docs/guide/search.md is true: its recipes find each row first, its numbers are the code's, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_worker.embed.search.build import MAX_DEAD_SHARE, MAX_GROWTH
from pagemill_worker.embed.search.dedup import EXACT_MAX_ROWS
from pagemill_worker.embed.search.manifest import MANIFEST_KEY, REPORT_KEY
from pagemill_worker.embed.search.recall import SAMPLE
from pagemill_worker.embed.search.shapes import CODE_DIMS, FLAT_MAX_NUMBERS, SAMPLE_MAX_BYTES
from pagemill_worker.export.postgresql import MAX_INDEXED_DIM
from pagemill_worker.testing.vector_dataset import clustered

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "search.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["faiss", "numpy"])
def test_guide_recipe_finds_each_row_first(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [f"{number:09d}" for number in range(200)]
    vectors = pa.array(list(clustered(200, 32)), pa.list_(pa.float32()))
    pq.write_table(pa.table({"key": keys, "embedding": vectors}), tmp_path / "embeddings.parquet")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}

    exec(compile(example(name), name, "exec"), known)

    assert capsys.readouterr().out.startswith("['000000000', ")
    if name == "faiss":
        scores, rows = known["index"].search(known["vectors"], 1)
        assert (rows[:, 0] == np.arange(200)).all()
        assert scores[:, 0] == pytest.approx(1, abs=1e-5)
    else:
        assert (np.argmax(known["vectors"] @ known["vectors"].T, axis=1) == np.arange(200)).all()


def test_guide_states_the_thresholds_of_the_code() -> None:
    assert f"{FLAT_MAX_NUMBERS // 512:,} rows of 512" in PAGE
    assert f"{FLAT_MAX_NUMBERS / 1e6:.0f} million numbers" in PAGE
    assert f"a byte for {CODE_DIMS} numbers" in PAGE
    assert f"({SAMPLE_MAX_BYTES >> 20} MiB at most)" in PAGE
    assert f"{SAMPLE} of its rows are searched" in PAGE
    assert f"Up to {EXACT_MAX_ROWS:,} rows" in PAGE
    assert f"up to {MAX_INDEXED_DIM:,}\nnumbers" in PAGE
    assert (MAX_DEAD_SHARE, MAX_GROWTH) == (0.2, 2.0), "the page says a fifth, and doubled"


def test_guide_names_the_keys_of_the_index() -> None:
    for key in (MANIFEST_KEY, REPORT_KEY):
        assert f"| `{key}` |" in PAGE
