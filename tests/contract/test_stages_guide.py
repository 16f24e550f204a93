"""docs/guide/stages.md, followed to the letter: the package is made, tried, and used by a real run."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pagemill_cli.testing.command import Told, run_command
from pagemill_core.testing import ocr_pages
from pagemill_worker.stages.pipeline import OCR, PICTURES, TENSORS, TEXTS
from pagemill_worker.stages.sizes import FIELDS, OWN_FIELDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "stages.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.timeout(300)


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    return found[1]


@dataclass
class Followed:
    """Where a reader of the guide is after its last step."""

    folder: Path
    environment: dict[str, str]

    def command(self, *words: object) -> Told:
        return run_command(*words, environment=self.environment)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("guide")
    told = run_command("stages", "new", "word-count", "--folder", folder, "-o", "json")
    assert told.status == 0, told.all
    assert told.json["use"] == "word_count.stages:WordCount", "as the guide's job says"
    package = folder / "word-count"
    compile((package / "word_count" / "stages.py").read_text(), "scaffold", "exec")
    (package / "word_count" / "stages.py").write_text(example("stage"))
    (folder / "pages").mkdir()
    full = ocr_pages.PrintedPage(ocr_pages.PROSE[0][:3])
    for name, page in (("a", full), ("b", ocr_pages.PrintedPage(("Fin",)))):
        (folder / "pages" / f"{name}.png").write_bytes(page.as_bytes())
    (folder / "job.yaml").write_text(example("job"))
    paths = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, str(package))  # what installing the package does
    try:
        yield Followed(folder, {"PYTHONPATH": paths, "PAGEMILL_STAGES_PACKAGES": "word_count"})
    finally:
        sys.path.remove(str(package))
        for name in [name for name in sys.modules if name.partition(".")[0] == "word_count"]:
            del sys.modules[name]


def test_guide_test_of_the_stage_passes(followed: Followed) -> None:
    known: dict[str, Any] = {}
    exec(compile(example("test"), "test", "exec"), known)
    known["test_word_count_notes_words_and_drops_pages_with_few"]()


def test_scaffolded_test_passes_for_every_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, takes in enumerate(("PageText", "PageImage", "Vector", "str")):
        name = f"scaffold-{number}"
        assert run_command("stages", "new", name, "--takes", takes, "--folder", tmp_path).status == 0
        monkeypatch.syspath_prepend(str(tmp_path / name))
        known: dict[str, Any] = {}
        exec(compile((tmp_path / name / "tests" / "test_stages.py").read_text(), name, "exec"), known)
        known["test_stage_gives_back_what_it_took"]()
    assert run_command("stages", "new", "scaffold-0", "--folder", tmp_path).status == 78, "it is there already"


def test_guide_stage_is_listed_once_its_package_is_allowed(followed: Followed) -> None:
    told = followed.command("stages", "list", "-o", "json")
    assert [found["use"] for found in told.json["classes"]] == [
        "pagemill_worker.stages.builtin.aesthetics:Aesthetics",
        "word_count.stages:WordCount",
    ]
    assert "Notes how many words a page has" in followed.command("stages", "list").out


def test_guide_trial_shows_every_stage_and_writes_nothing(followed: Followed) -> None:
    told = followed.command("stages", "test", followed.folder / "job.yaml", "--items", 8, "-o", "json")

    assert told.status == 0, told.all
    assert [stage["name"] for stage in told.json["stages"]] == ["fetch", "decode", "recognise", "word-count"]
    assert (told.json["items"], told.json["failed"], told.json["filtered"]) == (2, 1, 1)
    assert told.json["bottleneck"] == "recognise"
    assert told.json["failures"][0]["class"] == "FilteredByStage"
    assert [found["item"] for found in told.json["notes"]] == ["a"]
    assert not (followed.folder / "out").exists()


def test_guide_run_keeps_notes_and_reasons(followed: Followed) -> None:
    told = followed.command("run", followed.folder / "job.yaml", "--quiet", "-p", 1, "-o", "json")

    assert told.status == 0, told.all
    assert (told.json["items"]["succeeded"], told.json["failedByClass"]) == (1, {"FilteredByStage": 1})
    page = json.loads((followed.folder / "out" / "ocr_results" / "a_ocr.json").read_text())
    words = page["pagemill"]["metadata"]["stages"]["word-count"]["words"]
    assert words == len(page["full_text"].split())
    assert "word-count" in page["pagemill"]["seconds"]
    rows = pq.read_table(followed.folder / "out" / "dataset").to_pylist()
    assert [(row["id"], row["status"], row["error_message"]) for row in rows] == [
        ("a", "succeeded", None),
        ("b", "failed", "word-count: 1 words are fewer than 3"),
    ]
    assert json.loads(rows[0]["notes"]) == {"word-count": {"words": words}}


def test_guide_changed_option_is_other_work(followed: Followed) -> None:
    other = followed.folder / "other.yaml"
    other.write_text(example("job").replace('least: "3"', 'least: "1"'))
    told = followed.command("run", other, "--quiet", "-p", 1)
    assert told.status == 73, told.all


def test_guide_stage_that_is_not_allowed_is_refused_before_any_work(followed: Followed, tmp_path: Path) -> None:
    told = run_command("run", followed.folder / "job.yaml", "--quiet", environment={"PAGEMILL_STAGES_PACKAGES": ""})
    assert told.status == 78
    assert "PAGEMILL_STAGES_PACKAGES" in told.err


def test_guide_names_every_stage_and_field() -> None:
    for pipeline in (OCR, PICTURES, TEXTS, TENSORS):
        assert " → ".join(pipeline.names) in PAGE
    shown = {"batch_size": "batchSize"}
    for fields in FIELDS.values():
        assert [name for name in fields if f"`{shown.get(name, name)}`" not in PAGE] == []
    assert [shown.get(name, name) for name in sorted(OWN_FIELDS)] == ["attempts", "batchSize"]
    assert "takes `batchSize` and `attempts`" in PAGE
