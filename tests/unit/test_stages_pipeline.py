"""What stands where: order, types, sizes; and what is refused before any work starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.api.v1alpha1.workers import Stage as StageSpec
from pagemill_core.errors import EncoderFailed, EngineUnavailableError, IntegrityError, InvalidSpecError
from pagemill_worker.kinds.processes import processes_on_machine
from pagemill_worker.machine import machine
from pagemill_worker.stages.builtin.aesthetics import LAYERS, WIDTHS, Aesthetics
from pagemill_worker.stages.contract import PageImage, PageText, Stage, StageItem, Vector
from pagemill_worker.stages.loading import found_classes, make_stage
from pagemill_worker.stages.pipeline import OCR, PICTURES, TENSORS, TEXTS, Pipeline, arrange, check_types
from pagemill_worker.stages.settings import StagesSettings
from pagemill_worker.stages.setup import chain_fingerprint, chain_setup, load_chains
from pagemill_worker.stages.sizes import FIELDS, Sizes, gpu_environments, sizes_of
from pagemill_worker.stages.sizing import Pace, prepare_threads, wanted
from pagemill_worker.work.pool import PoolSettings


def own(name: str, after: str | None = None, **fields: Any) -> StageSpec:
    return StageSpec.model_validate({"name": name, "use": "pkg.stages:Own", "after": after, **fields})


def sized(name: str, **fields: Any) -> StageSpec:
    return StageSpec.model_validate({"name": name, **fields})


@pytest.mark.parametrize(
    ("pipeline", "stages", "want"),
    [
        (OCR, [own("b"), own("a")], ([], ["a", "b"])),
        (OCR, [own("z", "decode"), own("a", "decode"), own("m", "a")], (["a", "m", "z"], [])),
        (OCR, [own("late", "recognise"), own("early", "decode"), own("last")], (["early"], ["late", "last"])),
        (PICTURES, [own("score")], ([], ["score"])),
        (TEXTS, [own("clean", "fetch")], (["clean"], [])),
    ],
    ids=["default-by-name", "after-own", "both-sides", "pictures", "texts"],
)
def test_own_stages_stand_where_the_job_puts_them(
    pipeline: Pipeline, stages: list[StageSpec], want: tuple[list[str], list[str]]
) -> None:
    found = arrange(pipeline, stages)
    assert ([stage.name for stage in found.before], [stage.name for stage in found.behind]) == want


@pytest.mark.parametrize(
    ("pipeline", "stages", "want"),
    [
        (OCR, [sized("encode", processes=2)], "no stage encode"),
        (OCR, [own("a", "nowhere")], "after nowhere"),
        (OCR, [own("a", "fetch")], "after fetch"),
        (OCR, [own("a", "write")], "after write"),
        (OCR, [own("a", "b"), own("b", "a")], "after one another"),
        (TENSORS, [own("a")], "no stages of your own"),
    ],
    ids=["other-kind", "unknown", "closed", "at-the-end", "circle", "tensors"],
)
def test_stage_that_has_no_place_is_refused(pipeline: Pipeline, stages: list[StageSpec], want: str) -> None:
    with pytest.raises(InvalidSpecError, match=want):
        arrange(pipeline, stages)


@pytest.mark.parametrize(
    ("types", "want"),
    [
        ((PageText, PageText), "takes PageText, but what comes before the model is PageImage"),
        ((PageImage, PageText), "gives PageText, but the stage behind it takes PageImage"),
        ((PageImage, PageImage), None),
    ],
    ids=["takes", "gives", "fits"],
)
def test_types_are_compared_with_the_neighbours(types: tuple[type, type], want: str | None) -> None:
    arranged = arrange(OCR, [own("a", "decode")])
    if want is None:
        check_types(OCR, arranged, {"a": types})
    else:
        with pytest.raises(InvalidSpecError, match=want):
            check_types(OCR, arranged, {"a": types})


def test_sizes_are_those_of_the_stage_with_the_model() -> None:
    stages = [
        sized("decode", processes=6),
        sized("encode", gpus="0.5", attempts=2, batchSize=8, memory="2Gi"),
        own("x", attempts=3, batchSize=4),
    ]
    assert sizes_of(PICTURES, stages) == Sizes(
        gpus=Decimal("0.5"), memory_bytes=2 << 30, attempts=2, batch_size=8, prepare_threads=6
    )


@pytest.mark.parametrize(
    "stage",
    [sized("write", processes=2), sized("decode", attempts=2), sized("recognise", batchSize=2), own("x", cpus="1")],
    ids=["write", "decode", "recognise", "own"],
)
def test_size_that_would_change_nothing_is_refused(stage: StageSpec) -> None:
    with pytest.raises(InvalidSpecError, match="cannot be set"):
        sizes_of(OCR, [stage])


def test_every_built_in_stage_says_what_of_it_can_be_sized() -> None:
    assert set(FIELDS) == {name for pipeline in (OCR, PICTURES, TEXTS, TENSORS) for name in pipeline.names} | {
        "classify"
    }


@pytest.mark.parametrize(
    ("sizes", "want"),
    [
        (Sizes(), 3),
        (Sizes(processes=5), 5),
        (Sizes(cpus=Decimal("0.5")), 16),
        (Sizes(gpus=Decimal("0.25")), 8),
        (Sizes(gpus=Decimal("0.6")), 2),
        (Sizes(gpus=Decimal(2)), 1),
        (Sizes(gpus=Decimal("0.25"), cpus=Decimal(4)), 2),
    ],
    ids=["otherwise", "given", "cpus", "quarter", "odd", "two", "both"],
)
def test_processes_follow_shares_of_a_machine_with_eight_cores_and_two_gpus(sizes: Sizes, want: int) -> None:
    assert sizes.processes_on(8, 2, 3) == want


def test_gpus_are_shared_by_turns_and_never_beyond_their_room() -> None:
    quarter = Sizes(gpus=Decimal("0.25"))
    seen = [given["CUDA_VISIBLE_DEVICES"] for given in gpu_environments(quarter, 4, ["0", "1"])]
    assert seen == ["0", "1", "0", "1"]
    pairs = gpu_environments(Sizes(gpus=Decimal(2)), 2, ["0", "1", "2", "3"])
    assert [given["CUDA_VISIBLE_DEVICES"] for given in pairs] == ["0,1", "2,3"]
    assert gpu_environments(quarter, 4, []) == ()
    with pytest.raises(InvalidSpecError, match="do not fit on 2"):
        gpu_environments(Sizes(gpus=Decimal("0.6")), 3, ["0", "1"])


def test_process_in_the_place_of_a_dead_one_sees_the_same_gpu() -> None:
    slots = gpu_environments(Sizes(gpus=Decimal("0.5")), 4, ["0", "1"])
    settings = PoolSettings({}, 4, {"PATH": "x"}, slot_environments=slots)
    assert settings.environment_of(3) == {"PATH": "x", "CUDA_VISIBLE_DEVICES": "1"}
    assert PoolSettings({}, 4, {"PATH": "x"}).environment_of(3) == {"PATH": "x"}


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({}, machine().cores),
        ({"workers": {"processesPerPod": 3}}, 3),
        ({"workers": {"processesPerPod": 3}, "stages": [{"name": "recognise", "processes": 5}]}, 5),
    ],
    ids=["cores", "pod", "stage"],
)
def test_processes_are_the_stages_before_the_pods_before_the_cores(spec: dict[str, Any], want: int) -> None:
    body = {"source": {"images": {"uri": "pages"}}, "output": {"uri": "out"}, **spec}
    job = OcrJob.model_validate({"metadata": {"name": "x"}, "spec": body})
    assert processes_on_machine(job, {}) == want


@pytest.mark.parametrize(
    ("front", "model", "most", "want"),
    [(0.04, 0.01, 8, 4), (0.04, 0.01, 2, 2), (0.001, 1.0, 8, 1), (0.0, 0.1, 8, 1), (0.1, 0.0, 8, 8)],
    ids=["four-times", "few-cores", "slow-model", "no-front", "no-model"],
)
def test_threads_that_prepare_keep_the_model_busy(front: float, model: float, most: int, want: int) -> None:
    assert prepare_threads(front, model, most) == want


def test_wanted_sizes_name_the_bottleneck() -> None:
    seconds = {"fetch": 0.01, "decode": 0.03, "encode": 0.01}
    on_gpu, on_cpu = wanted(seconds, 16, model_on_gpu=True), wanted(seconds, 2)
    assert (on_gpu.prepare_threads, on_gpu.processes, round(on_gpu.items_per_second)) == (4, 1, 100)
    assert (on_cpu.prepare_threads, on_cpu.processes, on_cpu.bottleneck) == (1, 2, "decode")
    assert round(on_cpu.items_per_second) == 40


def test_pace_follows_the_latest() -> None:
    pace = Pace()
    for _ in range(3):
        pace.add(1.0)
    pace.add(2.0)
    assert (round(pace.seconds, 3), pace.count) == (1.2, 4)


# -- classes ----------------------------------------------------------------------------------------------------------


STAGE = """
from pagemill_worker.stages.contract import PageImage, Stage

class Own(Stage):
    takes = PageImage
    gives = PageImage

    def __init__(self, mode: str = "box") -> None:
        if mode not in ("box", "blur"):
            raise ValueError("mode is box or blur")

    def setup_on_node(self) -> None:
        with open(LOG, "a") as log:
            log.write("node ")

    def setup(self) -> None:
        with open(LOG, "a") as log:
            log.write("process ")

    def process(self, items):
        return items

class Lost:
    pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of a user's own with one stage, allowed here; its set-ups are noted in tmp_path/log."""
    name = f"users_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "stages.py").write_text(f"LOG = {str(tmp_path / 'log')!r}\n{STAGE}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PAGEMILL_STAGES_PACKAGES", name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return name


def use(package: str, cls: str = "Own", **fields: Any) -> list[StageSpec]:
    return [sized("own", use=f"{package}.stages:{cls}", after="decode", **fields)]


def test_own_stage_is_loaded_and_set_up_once_a_node_and_once_a_process(package: str, tmp_path: Path) -> None:
    setup = chain_setup(OCR, use(package, options={"mode": "blur"}, attempts=2))

    chains = [load_chains(setup) for _ in range(2)]

    assert (tmp_path / "log").read_text() == "node process process "
    assert [stage.attempts for stage in chains[0].ahead.stages] == [2]
    assert not chains[0].before
    assert setup.model_validate_json(setup.model_dump_json()) == setup


def test_stage_that_takes_batches_runs_with_the_model(package: str) -> None:
    chains = load_chains(chain_setup(OCR, use(package, batchSize=8)))
    assert (bool(chains.ahead), chains.batch_size) == (False, 8)


def test_fingerprint_of_stages_has_options_and_the_code_but_no_sizes(package: str, tmp_path: Path) -> None:
    before = chain_fingerprint(chain_setup(OCR, use(package)))
    assert chain_fingerprint(chain_setup(OCR, use(package, batchSize=4, attempts=3))) == before
    assert chain_fingerprint(chain_setup(OCR, use(package, options={"mode": "blur"}))) != before
    code = tmp_path / package / "stages.py"
    code.write_text(code.read_text() + "\n# another\n")
    os.utime(code, ns=(1, 1))
    assert chain_fingerprint(chain_setup(OCR, use(package))) != before


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"options": {"mode": "melt"}}, "mode is box or blur"),
        ({"options": {"colour": "red"}}, "colour"),
        ({"cls": "Lost"}, "is no stage"),
        ({"cls": "Absent"}, "has no class Absent"),
    ],
    ids=["value", "option", "no-stage", "no-class"],
)
def test_stage_that_cannot_be_made_is_refused(package: str, fields: dict[str, Any], want: str) -> None:
    with pytest.raises(InvalidSpecError, match=want):
        chain_setup(OCR, use(package, **fields))


def test_stage_of_a_package_that_is_not_allowed_is_refused(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAGEMILL_STAGES_PACKAGES")
    with pytest.raises(InvalidSpecError, match="may not be used here") as refused:
        chain_setup(OCR, use(package))
    assert "PAGEMILL_STAGES_PACKAGES" in refused.value.advice
    with pytest.raises(InvalidSpecError, match="may not be used here"):
        make_stage("os:system", {}, StagesSettings())


def test_stage_whose_module_is_missing_says_so(package: str) -> None:
    with pytest.raises(EngineUnavailableError, match="is not installed"):
        make_stage(f"{package}.absent:Own", {}, StagesSettings())


def test_classes_of_allowed_packages_are_found(package: str) -> None:
    found = found_classes(StagesSettings())
    assert set(found) == {"pagemill_worker.stages.builtin.aesthetics:Aesthetics", f"{package}.stages:Own"}


# -- aesthetics -------------------------------------------------------------------------------------------------------


def weights_file(path: Path, **changes: Any) -> tuple[Path, str]:
    """A network whose score is the first number of the row, times 8."""
    import safetensors.numpy

    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for number, (before, after) in zip(LAYERS, zip(WIDTHS, WIDTHS[1:], strict=False), strict=True):
        weight = np.zeros((after, before), np.float32)
        weight[0, 0] = 8.0 if number == 0 else 1.0
        tensors |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": np.zeros(after, np.float32)}
    path.write_bytes(safetensors.numpy.save({**tensors, **changes}))
    return path, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def rows(*firsts: float) -> Sequence[StageItem]:
    made = []
    for number, first in enumerate(firsts):
        row = np.zeros(768, np.float32)
        row[0], row[1] = first, np.sqrt(1 - first**2)
        made.append(StageItem(id=f"p{number}", value=Vector(row, "visual")))
    return made


def test_aesthetics_keeps_what_is_pleasing_and_notes_every_score(tmp_path: Path) -> None:
    path, digest = weights_file(tmp_path / "w.safetensors")
    stage = Aesthetics(str(path), digest, threshold="4.0")
    stage.setup()

    out = stage.process(rows(0.75, 0.25, 0.5))

    assert [(item.notes, item.filtered) for item in out] == [
        ({"score": 6.0}, ""),
        ({"score": 2.0}, "score 2.0 is below 4"),
        ({"score": 4.0}, ""),
    ]


@pytest.mark.parametrize("row", [np.zeros(768), np.full(768, np.nan), np.ones(512)], ids=["zero", "nan", "short"])
def test_aesthetics_row_that_cannot_be_scored_is_an_error(tmp_path: Path, row: np.ndarray[Any, Any]) -> None:
    path, digest = weights_file(tmp_path / "w.safetensors")
    stage = Aesthetics(str(path), digest)
    stage.setup()
    with pytest.raises(EncoderFailed):
        stage.process([StageItem(id="x", value=Vector(row.astype(np.float32), "visual"))])


def test_aesthetics_other_weights_are_refused(tmp_path: Path) -> None:
    path, digest = weights_file(tmp_path / "w.safetensors")
    with pytest.raises(IntegrityError, match="digest"):
        Aesthetics(str(path), "sha256:" + "0" * 64).setup()
    path, digest = weights_file(tmp_path / "other", **{"layers.9.bias": np.zeros(1, np.float32)})
    with pytest.raises(EngineUnavailableError, match="another network"):
        Aesthetics(str(path), digest).setup()


def test_aesthetics_options_are_checked_with_the_job() -> None:
    options: Mapping[str, str] = {"weights": "w", "digest": "sha256:00", "threshold": "high"}
    with pytest.raises(InvalidSpecError, match="high"):
        make_stage("pagemill_worker.stages.builtin.aesthetics:Aesthetics", options, StagesSettings())


def test_stage_contract_is_small() -> None:
    class Least(Stage):
        takes = PageImage
        gives = PageImage

        def process(self, items: Sequence[StageItem]) -> Sequence[StageItem]:
            return items

    stage = Least()
    stage.setup_on_node()
    stage.setup()
    stage.shutdown()
    assert (stage.batch_size, stage.version) == (1, "")
