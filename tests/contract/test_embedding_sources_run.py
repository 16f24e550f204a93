"""Sources of EmbeddingJobs through the command: the chain from scan to tensors, and data sets in all their forms."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pagemill_cli.testing.command import Told, run_command, s3_environment
from pagemill_core.testing import ocr_pages
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_worker.testing.tiny_models import DIM, tiny_clip

pytestmark = pytest.mark.timeout(600)

TEXT = {"model": {"name": "all-minilm-l6-v2"}, "format": "plainText"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"model": {"uri": str(tiny_clip(tmp_path_factory.mktemp("models") / "tiny"))}}


def document(kind: str, name: str, folder: Path, **spec: Any) -> str:
    body = {"output": {"uri": str(folder / name)}, "retries": {"maxFailedItems": "100%"}, **spec}
    job = {"apiVersion": "pagemill.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": body}
    return json.dumps(job, ensure_ascii=False)


def run(folder: Path, *documents: str, environment: dict[str, str] | None = None) -> Told:
    file = folder / "jobs.yaml"
    file.write_text("\n---\n".join(documents), encoding="utf-8")
    log = ("--log", str(folder / "log"), "--quiet", "--processes", "1", "--output", "json")
    return run_command("run", file, *log, environment=environment or {})


def picture(seed: int) -> bytes:
    colours = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((60, 80), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


@pytest.mark.timeout(600)
def test_scan_to_tensors_in_one_file_and_by_way_of_folders_agree(tmp_path: Path, model: dict[str, Any]) -> None:  # 45
    for book, pages in (("one #1", (1, 2)), ("two ê", (3,))):
        (tmp_path / "shelf" / book).mkdir(parents=True)
        for page in pages:
            (tmp_path / "shelf" / book / f"page_{page}.png").write_bytes(ocr_pages.note(page).as_bytes())
    (tmp_path / "shelf" / "two ê" / "page_9.png").write_bytes(b"no picture")
    told = run(
        tmp_path,
        document(
            "OcrJob",
            "scan",
            tmp_path,
            source={"images": {"uri": str(tmp_path / "shelf")}},
            engine={"name": "tesseract"},
            output={"uri": str(tmp_path / "scan"), "formats": ["json", "ocrResult"]},
        ),
        document(
            "EmbeddingJob",
            "chained",
            tmp_path,
            source={"ocrJob": {"name": "scan", "groupBy": "directory", "badPages": "Drop"}},
            visual=model,
            text=TEXT,
        ),
        document(
            "EmbeddingJob",
            "folders",
            tmp_path,
            source={
                "books": {
                    "uri": str(tmp_path / "shelf"),
                    "textUri": str(tmp_path / "scan" / "ocr_results"),
                    "badPages": "Drop",
                }
            },
            dependsOn=[{"kind": "OcrJob", "name": "scan"}],
            visual=model,
            text=TEXT,
        ),
    )
    assert told.status == 0, told.all
    for book, count in (("one #1", 2), ("two ê", 1)):
        for side, dim in (("visual", DIM), ("text", 384)):
            chained = torch.load(tmp_path / "chained" / side / f"{book}.pt")
            folders = torch.load(tmp_path / "folders" / side / f"{book}.pt")
            assert chained.shape == folders.shape == (count, dim)
            assert torch.allclose(chained, folders, atol=1e-5), (book, side)
    text = torch.load(tmp_path / "chained" / "text" / "one #1.pt")
    assert not torch.allclose(text[0], text[1], atol=1e-3), "pages with other words have other rows"
    record = json.loads((tmp_path / "chained" / "records" / "two ê.json").read_text())
    assert record["status"] == "success"
    assert "page_9" in json.dumps(record["pagemill"]["bad_pages"])


@pytest.mark.s3
def test_data_set_in_every_form_gives_the_same_rows_for_the_same_pictures(
    tmp_path: Path, model: dict[str, Any], s3_server: SeaweedServer
) -> None:  # 50, 53, 56, 58, 59
    bucket = s3_server.fresh_bucket()
    store = s3_server.store(bucket)
    data = {number: picture(number) for number in range(4)}
    for number, body in data.items():
        store.put(f"pics/{number} #ê.png", body)
    keys = [f"{number:05d}" for number in data]
    root = tmp_path / "set"
    root.mkdir()
    urls = [f"s3://{bucket}/pics/{number} #ê.png" for number in data]
    pq.write_table(pa.table({"key": keys, "url": urls}), root / "a.parquet")  # s3 urls, local shards
    pq.write_table(pa.table({"key": keys, "png": list(data.values())}), root / "b.parquet")
    table = {"key": [*keys[::-1], "gone"], "status": ["success"] * 4 + ["failed_to_download"]}
    pq.write_table(pa.table(table), root / "c.parquet")
    with tarfile.open(root / "c.tar", "w") as tar:
        for key, body in zip(keys, data.values(), strict=True):
            info = tarfile.TarInfo(f"{key}.png")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    for path in root.iterdir():
        store.put(f"set/{path.name}", path.read_bytes())
    told = run(
        tmp_path,
        document("EmbeddingJob", "local", tmp_path, source={"dataset": {"uri": str(root)}}, visual=model),
        document("EmbeddingJob", "bucket", tmp_path, source={"dataset": {"uri": f"s3://{bucket}/set/"}}, visual=model),
        environment=s3_environment(s3_server.server.settings("worker")),
    )
    assert told.status == 0, told.all
    local, bucketed = (pd.read_parquet(tmp_path / name / "embeddings.parquet") for name in ("local", "bucket"))
    assert local["key"].tolist() == bucketed["key"].tolist() == [*keys, *keys, *keys[::-1]]
    rows = np.array(local["embedding"].tolist())
    assert np.array_equal(rows, np.array(bucketed["embedding"].tolist()))
    by_url, by_cell, by_member = rows[:4], rows[4:8], rows[8:][::-1]
    assert np.allclose(by_url, by_cell, atol=1e-5)
    assert np.allclose(by_url, by_member, atol=1e-5)
    assert local["url"].tolist()[:4] == urls
    failures = pd.read_parquet(tmp_path / "local" / "failures.parquet")
    assert failures[["key", "reason"]].values.tolist() == [["gone", "RowUnusable"]]
