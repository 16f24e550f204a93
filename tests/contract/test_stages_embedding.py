"""EmbeddingJobs with stages of their own through the command: cut, filtered, scored, and told of in every file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pagemill_cli.testing.command import Told, run_command
from pagemill_worker.testing.tiny_models import DIM, tiny_clip

pytestmark = pytest.mark.timeout(300)
NAME = "stages_of_a_test"
STAGES = """
import numpy as np
from pagemill_worker.stages.contract import PageImage, Stage, StageItem, Vector

class Halves(Stage):
    takes = PageImage
    gives = PageImage

    def process(self, items):
        for item in items:
            middle = item.value.width_px // 2
            for left, part in ((0, item.value.pixels[:, :middle]), (middle, item.value.pixels[:, middle:])):
                yield item.with_value(PageImage(np.ascontiguousarray(part)), left=left)

class NotBright(Stage):
    takes = PageImage
    gives = PageImage
    batch_size = 4

    def process(self, items):
        for item in items:
            mean = round(float(item.value.pixels.mean()), 1)
            yield item.with_notes(mean=mean) if mean < 200 else item.drop("too bright", mean=mean)

class Broken(Stage):
    takes = Vector
    gives = Vector

    def process(self, items):
        if any(item.id == "3" for item in items):
            raise KeyError("planted")
        return items
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Told, Path]:
    """A run over five pictures: one is white, one breaks the last stage."""
    folder = tmp_path_factory.mktemp("job")
    (folder / NAME).mkdir()
    (folder / NAME / "__init__.py").write_text(STAGES)
    (folder / "pictures").mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise if number != 2 else np.full_like(noise, 255)).save(folder / "pictures" / f"{number}.png")
    spec = {
        "source": {"images": {"uri": "pictures"}},
        "visual": {"model": {"uri": str(tiny_clip(folder / "model"))}},
        "output": {"uri": "out", "formats": ["parquet"]},
        "retries": {"maxFailedItems": "1"},
        "stages": [
            {"name": "halves", "use": f"{NAME}:Halves", "after": "decode"},
            {"name": "not-bright", "use": f"{NAME}:NotBright", "after": "halves"},
            {"name": "broken", "use": f"{NAME}:Broken", "attempts": 2},
            {"name": "decode", "processes": 2},
            {"name": "encode", "processes": 1, "batchSize": 2, "attempts": 2},
        ],
    }
    document = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "EmbeddingJob",
        "metadata": {"name": "cut"},
        "spec": spec,
    }
    (folder / "job.yaml").write_text(json.dumps(document))
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        environment = {"PYTHONPATH": paths, "PAGEMILL_STAGES_PACKAGES": NAME}
        log = ("--log", folder / "log", "--quiet", "-o", "json")
        return run_command("run", folder / "job.yaml", *log, environment=environment), folder


def test_run_with_stages_counts_what_was_filtered_apart_from_what_failed(told: tuple[Told, Path]) -> None:
    done, folder = told
    assert done.status == 0, done.all + (folder / "log").read_text()
    classes = {name.partition("#")[0]: count for name, count in done.json["failedByClass"].items()}
    assert classes == {"FilteredByStage": 1, "EngineFailed": 1}
    assert done.json["items"]["succeeded"] == 3


def test_dataset_has_notes_and_reasons_of_every_item(told: tuple[Told, Path]) -> None:
    _, folder = told
    rows = {row["id"]: row for row in pq.read_table(folder / "out" / "dataset").to_pylist()}
    notes = json.loads(rows["0"]["notes"])
    assert notes["halves"] == [{"left": 0}, {"left": 30}]
    assert [set(piece) for piece in notes["not-bright"]] == [{"mean"}, {"mean"}]
    assert np.linalg.norm(rows["0"]["embedding"]) == pytest.approx(1, abs=1e-3)
    assert (rows["0"]["width_px"], len(rows["0"]["embedding"])) == (60, DIM)
    assert rows["2"]["error_message"] == "not-bright: too bright"
    assert json.loads(rows["2"]["notes"])["not-bright"][0] == {"mean": 255.0}
    assert rows["2"]["embedding"] is None
    assert rows["3"]["error_message"].startswith("stage broken raised KeyError: 'planted' (traceback ")


def test_table_for_notebooks_has_the_notes(told: tuple[Told, Path]) -> None:
    _, folder = told
    table = pd.read_parquet(folder / "out" / "embeddings.parquet")
    assert len(table) == 3
    assert all("halves" in json.loads(text) for text in table["notes"])
