"""The driver of generated files: what it reports and what it writes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield importlib.import_module("generate")
    sys.modules.pop("generate", None)


@pytest.fixture
def generator_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("made_up_generator")
    module.render = lambda: {"out/a.yaml": "a: 1\n", "out/b.yaml": "b: 2\n"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_generator", module)
    return module


@pytest.mark.usefixtures("generator_module")
def test_generated_files_missing_changed_and_stale_are_all_reported(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.yaml").write_text("b: 3\n", encoding="utf-8")
    (tmp_path / "out" / "old.yaml").write_text("", encoding="utf-8")
    generators = (generate.Generator("made_up_generator:render", owns=("out/*.yaml",)),)

    found = [each.describe().splitlines()[0] for each in generate.differences(tmp_path, generators)]

    assert found == [
        "out/a.yaml: missing",
        "out/b.yaml: differs",
        "out/old.yaml: no generator returns it any more",
    ]


@pytest.mark.usefixtures("generator_module")
def test_generated_files_applied_no_longer_differ(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.yaml").write_text("", encoding="utf-8")
    generators = (generate.Generator("made_up_generator:render", owns=("out/*.yaml",)),)

    for difference in list(generate.differences(tmp_path, generators)):
        generate.apply(tmp_path, difference)

    assert list(generate.differences(tmp_path, generators)) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.yaml", "b.yaml"]


@pytest.mark.usefixtures("generator_module")
def test_generated_path_returned_twice_is_refused(generate: ModuleType, tmp_path: Path) -> None:
    generators = (generate.Generator("made_up_generator:render"), generate.Generator("made_up_generator:render"))

    with pytest.raises(generate.ConflictError, match="out/a.yaml"):
        list(generate.differences(tmp_path, generators))
