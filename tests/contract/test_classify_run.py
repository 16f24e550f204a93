"""The classification of books' pages through the command: while they are encoded, and from finished tensors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pagemill_cli.testing.command import run_command
from pagemill_core.testing import ocr_pages
from pagemill_worker.embed.classify.labels import LABELS
from pagemill_worker.embed.classify.networks import BookBert
from pagemill_worker.embed.classify.settings import ClassifierConfig
from pagemill_worker.testing.tiny_models import DIM, tiny_clip

pytestmark = pytest.mark.timeout(600)

SIZES = {
    "visual_feature_dim": DIM,
    "textual_feature_dim": 384,
    "bert_input_dim": 32,
    "projection_dim": 32,
    "max_pages": 4,
}
BOOKS = {"Night Mill #1": 6, "short": 1, "series/2": 3}  # the first is longer than the position table


def fill(folder: Path) -> None:
    for number, (book, pages) in enumerate(BOOKS.items()):
        place = folder / "books" / book
        place.mkdir(parents=True)
        for page in range(pages):
            (place / f"{page}.png").write_bytes(ocr_pages.note(10 * number + page).as_bytes())
            (place / f"{page}.json").write_text(json.dumps({"OCRResult": {"full_text": f"{book} {page}"}}))
    (folder / "annotations.json").write_text(json.dumps([{"hash_code": book} for book in BOOKS]))
    torch.manual_seed(0)
    torch.save(BookBert(ClassifierConfig(**SIZES)).state_dict(), folder / "bert.pt")
    (folder / "bert.json").write_text(json.dumps(SIZES))
    tiny_clip(folder / "model")


def job(name: str, **spec: Any) -> dict[str, Any]:
    classify = {"checkpoint": "bert.pt", "config": "bert.json", "windowOverlap": 2}
    return {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "EmbeddingJob",
        "metadata": {"name": name},
        "spec": {"classify": classify, "output": {"uri": name}, **spec},
    }


def test_labels_are_the_same_from_pages_and_from_finished_tensors(tmp_path: Path) -> None:  # 25
    fill(tmp_path)
    books = job(
        "books",
        source={"books": {"uri": "books", "annotations": "annotations.json"}},
        visual={"model": {"uri": str(tmp_path / "model")}},
        text={"model": {"name": "all-minilm-l6-v2"}},
    )
    # One book a shard, in another number of processes: neither is seen in what comes out.
    labels = job("labels", source={"embeddingJob": {"name": "books"}}, sharding={"itemsPerShard": 1})
    file = tmp_path / "jobs.yaml"
    file.write_text("\n---\n".join(map(json.dumps, (labels, books))))

    told = run_command("run", file, "--quiet", "--log", tmp_path / "log")

    assert told.status == 0, f"{told.all}\n{(tmp_path / 'log').read_text()[-2000:]}"
    for book, pages in BOOKS.items():
        found = [torch.load(tmp_path / name / "labels" / f"{book}_probs.pt") for name in ("books", "labels")]
        assert found[0].shape == (pages, len(LABELS))
        assert found[0].dtype == torch.float32
        assert torch.allclose(found[0].sum(dim=1), torch.ones(pages), atol=1e-5)
        assert torch.equal(*found)
        readable = json.loads((tmp_path / "labels" / "labels" / f"{book}.json").read_text())
        assert [page["index"] for page in readable["pages"]] == list(range(pages))
        assert {page["label"] for page in readable["pages"]} <= set(LABELS)
    table = pd.read_parquet(next((tmp_path / "labels" / "dataset").rglob("*.parquet")))
    assert len(table) == sum(BOOKS.values())
    assert set(table.columns) >= {"book", "label", "label_confidence", "label_probabilities"}


def test_a_book_with_one_side_alone_fails_by_name_and_the_others_are_done(tmp_path: Path) -> None:
    fill(tmp_path)
    done = tmp_path / "done"
    for side, width in (("visual", DIM), ("text", 384)):
        (done / side).mkdir(parents=True)
        torch.save(torch.rand(2, width), done / side / "whole.pt")
    torch.save(torch.rand(2, DIM), done / "visual" / "half.pt")
    (done / "text" / "odd.pt").write_bytes(b"no tensor")
    torch.save(torch.rand(2, DIM), done / "visual" / "odd.pt")
    file = tmp_path / "job.yaml"
    wanted = job("labels", source={"embeddingJob": {"uri": str(done)}}, retries={"maxFailedItems": "100%"})
    file.write_text(json.dumps(wanted))

    told = run_command("run", file, "--quiet", "--output", "json")

    assert told.status == 0, told.all
    assert told.json["items"] == {"planned": 3, "succeeded": 1, "failed": 2, "skipped": 0}
    table = pd.read_parquet(io.BytesIO(next((tmp_path / "labels" / "dataset").rglob("*.parquet")).read_bytes()))
    failures = dict(zip(table["id"], table["error_message"], strict=True))
    assert "text/half.pt is not there" in failures["half"]
    assert "no tensor" in failures["odd"]


def test_a_checkpoint_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(job("labels", source={"embeddingJob": {"uri": "done"}})))
    told = run_command("run", file, "--quiet")
    assert told.status == 69
    assert "bert.pt" in told.err
    assert not (tmp_path / "labels").exists()
