"""EmbeddingJobs on a real node: scans to text to vectors to labels and to search, by kubectl alone.

The encoders' packages (gigabytes, most of them for GPUs) come to the pods as models may: on a claim, which the settings
name for the loader. So the worker's own image is tested as it is, with real models in it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from testcluster.api import Json, object_path
from testcluster.stage import TAG, WORKER_IMAGE, Stage

from pagemill_core.testing import ocr_pages
from pagemill_worker.embed.classify.networks import BookBert
from pagemill_worker.embed.classify.settings import ClassifierConfig
from pagemill_worker.testing.tiny_models import DIM, tiny_clip

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(1800)]

PACKAGES = Path(np.__file__).resolve().parents[1]
BOOKS = ("Night Mill #1", "Étoile, 2")
PAGES = 3
TEXT_DIM = 384
SIZES = {"visual_feature_dim": DIM, "textual_feature_dim": TEXT_DIM, "bert_input_dim": 32, "projection_dim": 32}


@pytest.fixture
def prepared(empty_stage: Stage, tmp_path: Path) -> Iterator[Stage]:
    """A stage whose workers find encoders and models on claims."""
    stage = empty_stage
    models = tmp_path / "models"
    tiny_clip(models / "tiny")
    for path in (tmp_path, models, *models.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    names = [_volume(stage, "packages", PACKAGES), _volume(stage, "models", models)]
    values = stage.values()
    values["config"]["pools"] = [{"name": "cpu", "cpu": "1", "memory": "2Gi", "pricePerHour": "0.10"}]
    values["config"]["images"]["loaders"] = {
        "default": {
            "image": f"{WORKER_IMAGE}:{TAG}",
            "models": [
                {"claimName": "packages", "mountPath": "/opt/encoders"},
                {"claimName": "models", "mountPath": "/models"},
            ],
            "environment": {"PYTHONPATH": "/opt/encoders"},
        }
    }
    stage.install(values)
    yield stage
    for name in names:
        stage.api.call("DELETE", object_path("v1", "persistentvolumes", "", name))


def _volume(stage: Stage, claim: str, folder: Path) -> str:
    """A claim of the stage's namespace, bound to a folder of this machine. Returns: the volume's name."""
    name = f"{stage.namespace}-{claim}"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            **common,
            "capacity": {"storage": "10Gi"},
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": stage.namespace, "name": claim},
        },
    }
    bound = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim},
        "spec": {**common, "volumeName": name, "resources": {"requests": {"storage": "10Gi"}}},
    }
    stage.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [volume, bound]}))
    return name


def embedding_job(stage: Stage, name: str, **spec: Json) -> Json:
    base = stage.job(name)
    del base["spec"]["source"], base["spec"]["engine"]
    return {**base, "kind": "EmbeddingJob", "spec": {**base["spec"], **spec}}


def finished(stage: Stage, name: str) -> Json:
    """The status of an EmbeddingJob once it has ended."""
    place = object_path("pagemill.dev/v1alpha1", "embeddingjobs", stage.namespace, name)

    def status() -> Json:
        return (stage.api.read_or_none(place) or {}).get("status") or {}

    stage.wait(lambda: status().get("phase") in ("Succeeded", "Failed"), f"the end of {name}", most_s=600)
    return status()


def scans(stage: Stage) -> None:
    stage.put_pages(
        {
            f"{book}/page_{number:03}.png": ocr_pages.note(10 * index + number).as_bytes()
            for index, book in enumerate(BOOKS)
            for number in range(PAGES)
        }
    )


def test_scans_become_text_then_books_of_vectors_then_labels_in_two_applies(prepared: Stage, tmp_path: Path) -> None:
    stage = prepared
    scans(stage)
    torch.manual_seed(0)
    weights = io.BytesIO()
    torch.save(BookBert(ClassifierConfig(**SIZES)).state_dict(), weights)
    stage.put_pages({"bert.pt": weights.getvalue(), "bert.json": json.dumps(SIZES).encode()}, "checkpoints")
    stage.apply(stage.job("scans", engine={"name": "tesseract", "languages": ["en"]}))
    books = embedding_job(
        stage,
        "books",
        source={"ocrJob": {"name": "scans", "groupBy": "directory"}},
        visual={"model": {"uri": "/models/tiny"}},
        text={"model": {"name": "all-minilm-l6-v2"}},
        classify={
            "checkpoint": f"s3://{stage.bucket}/checkpoints/bert.pt",
            "config": f"s3://{stage.bucket}/checkpoints/bert.json",
        },
    )
    stage.apply(books)
    shown = stage.kubectl("get", "embeddingjobs")
    assert shown.splitlines()[0].split() == ["NAME", "PHASE", "DONE", "FAILED", "RATE", "ETA", "COST", "AGE"]

    status = finished(stage, "books")

    assert (status["phase"], status["done"]) == ("Succeeded", "2/2"), f"{status}\n{stage.report()}"
    store = stage.store("out/books")
    for book in BOOKS:
        visual, text, labels = (
            torch.load(io.BytesIO(store.get(key).data))
            for key in (f"visual/{book}.pt", f"text/{book}.pt", f"labels/{book}_probs.pt")
        )
        assert (visual.shape, text.shape, labels.shape) == ((PAGES, DIM), (PAGES, TEXT_DIM), (PAGES, 9))
        assert torch.allclose(labels.sum(dim=1), torch.ones(PAGES), atol=1e-5)
        assert json.loads(store.get(f"records/{book}.json").data)["status"] == "success"


def test_pictures_become_an_index_that_search_finds_them_in(prepared: Stage, tmp_path: Path) -> None:
    stage = prepared
    scans(stage)
    job = embedding_job(
        stage,
        "pictures",
        source={"images": {"uri": f"s3://{stage.bucket}/pages"}},
        visual={"model": {"uri": "/models/tiny"}},
    )
    job["spec"]["output"] = {**job["spec"]["output"], "formats": ["parquet", "faiss"]}
    job["spec"]["workers"]["parallelism"] = 2
    stage.apply(job)

    status = finished(stage, "pictures")

    total = len(BOOKS) * PAGES
    assert (status["phase"], status["done"]) == ("Succeeded", f"{total}/{total}"), f"{status}\n{stage.report()}"
    store = stage.store("out/pictures")
    table = pq.read_table(io.BytesIO(store.get("embeddings.parquet").data))
    vectors = np.array(table["embedding"].to_pylist())
    assert vectors.shape == (total, DIM)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert json.loads(_search(stage, "--like", f"{BOOKS[0]}/page_001"))


def _search(stage: Stage, *words: str) -> str:
    """`pagemill search` on the bucket, from this machine, in the cluster's network."""
    settings = stage.settings_inside()
    environment = {
        **os.environ,
        "PAGEMILL_S3_ENDPOINT": settings.endpoint,
        "PAGEMILL_S3_ACCESS_KEY": settings.access_key,
        "PAGEMILL_S3_SECRET_KEY": settings.secret_key.get_secret_value(),
        "PAGEMILL_S3_REGION": settings.region,
    }
    network = ["nsenter", f"--target={stage.cluster.status().state.pid}", "--net", "--"]
    command = [*network, sys.executable, "-m", "pagemill_cli.main", "search", f"s3://{stage.bucket}/out/pictures"]
    done = subprocess.run(
        [*command, *words, "--output", "json"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
