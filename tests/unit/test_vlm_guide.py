"""The guide names every option and default that the code has, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from pagemill_core.api.load import load_jobs
from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.api.v1alpha1.jobs import API_VERSION
from pagemill_worker.ocr.job import checked_adapter, engine_settings
from pagemill_worker.ocr.vlm_options import VlmOptions
from pagemill_worker.ocr.vlm_presets import OPENROUTER_URL, PRESETS, Boxes

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "vlm.md"


def section(title: str) -> str:
    text = GUIDE.read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_guide_lists_exactly_the_options_there_are() -> None:
    rows = [line.split("|")[1] for line in section("Options").splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    assert listed == {field.alias for field in VlmOptions.model_fields.values()}


def test_guide_examples_are_engines_that_a_job_may_ask_for() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        engine = yaml.safe_load(example)["engine"]
        spec = {"source": {"images": {"uri": "pages"}}, "engine": engine, "output": {"uri": "out"}}
        job = {"apiVersion": API_VERSION, "kind": "OcrJob", "metadata": {"name": "example"}, "spec": spec}
        (loaded,) = load_jobs(json.dumps(job), origin="guide")
        assert isinstance(loaded, OcrJob)
        checked_adapter(engine_settings(loaded, "a-key"))


def test_guide_states_the_defaults_of_the_code() -> None:
    defaults = {
        field.alias: field.default for field in VlmOptions.model_fields.values() if type(field.default) in (int, float)
    }
    rows = [line.split("|") for line in section("Options").splitlines() if line.startswith("| `")]
    stated = {
        name: value
        for _, names, values, *_ in rows
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(","), strict=False)
    }

    assert {name: float(stated[name]) for name in defaults if name != "jpegQuality"} == {
        name: float(value) for name, value in defaults.items() if name != "jpegQuality"
    }
    assert OPENROUTER_URL in section("Options")


def test_guide_names_every_preset_model_and_box_convention() -> None:
    text = section("Which model")

    assert [
        model for model in (preset.model for preset in PRESETS.values()) if model and f"`{model}`" not in text
    ] == []
    assert [boxes.value for boxes in Boxes if f"`{boxes.value}`" not in text] == []
