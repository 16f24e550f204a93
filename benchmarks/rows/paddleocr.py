"""The paddleocr engine against the loop of the package's own documentation, with the same models and runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.pages import Kind, pages, repeated
from benchmarks.harness.paired import Figures, Plan, interleave, ratio
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.row import Found, Row, at_least
from benchmarks.rows.reading import Reading, loop_side, pagemill_side, speeds
from pagemill_worker.ocr.paddle_models import Version, find_model, prepare
from pagemill_worker.ocr.settings import OcrSettings

LOOP = "documented loop"


@dataclass(frozen=True, slots=True)
class Trial:
    """A model over one kind of page; `loop_model` is what the documented loop reads with."""

    model: Version
    kind: Kind
    size: int
    loop_model: Version

    @property
    def name(self) -> str:
        models = self.model if self.model == self.loop_model else f"{self.model} against {self.loop_model}"
        return f"{models}, {self.kind}"


TRIALS = (
    Trial("tiny", "scans", 48, "tiny"),
    Trial("small", "scans", 12, "small"),
    Trial("tiny", "documents", 48, "tiny"),
)
PAIRS, QUICK_SIZE, WARM_SIZE = 2, 2, 2


def measure(place: Place) -> Found:
    """Each model and kind of page in turn."""
    checks, samples = [], dict[str, list[Figures]]()
    for trial in TRIALS[:1] if place.quick else TRIALS:
        found = _measure_one(place, trial)
        ours, theirs = found.values()
        speed = ratio(ours, theirs, "pages_per_s")
        checks.append(at_least(f"paddleocr engine ({trial.name}) against the documented loop", 4.0, "×", speed))
        samples |= {f"{trial.name}: {side}": runs for side, runs in found.items()}
    groups: dict[str, dict[str, list[float]]] = {}
    for name, runs in samples.items():
        trial_name, _, side = name.partition(": ")
        groups.setdefault(trial_name, {})[side] = [run["pages_per_s"] for run in runs]
    picture = Picture(place.output / f"{ROW.name}.png", "PaddleOCR, the same pages, models and runtime", "pages/s")
    bars(picture, groups)
    notes = [
        "pages/s on a busy machine flatter Pagemill: each of its processes is a session of its own, and Linux shares "
        "cores by session; CPU s a page do not"
    ]
    return Found(checks=checks, tables=[speeds(samples)], samples=samples, notes=notes, plot=picture.path.name)


def _measure_one(place: Place, trial: Trial) -> dict[str, list[Figures]]:
    files = pages(place, trial.kind)

    def choose(size: int) -> list[Path]:
        return repeated(files, size)

    models = _models(place, trial.loop_model)
    loop = loop_side(
        LOOP,
        place.python(
            "benchmarks.sides.paddleocr_loop",
            PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK="True",
            PADDLE_PDX_CACHE_HOME=str(place.work / "paddlex"),
        ),
        lambda size: {**models, "pages": list(map(str, choose(size)))},
    )
    ours = pagemill_side(Reading(place, "paddleocr", choose, {"model": trial.model}))
    return interleave((ours, loop), place.plan(Plan(trial.size, PAIRS, WARM_SIZE), QUICK_SIZE))


def _models(place: Place, version: Version) -> dict[str, dict[str, str]]:
    """The model folders, as the engine prepares them."""
    settings = OcrSettings(cache_dir=Path(place.variables["PAGEMILL_OCR_CACHE_DIR"]))
    detector, recogniser = find_model(version, "det", settings), find_model(version, "rec", settings)
    return {
        part: {"name": model.name, "folder": str(prepare(model, settings.cache_dir))}
        for part, model in (("detector", detector), ("recogniser", recogniser))
    }


ROW = Row(
    name="paddleocr",
    question="Is the paddleocr engine faster than the loop of PaddleOCR's documentation?",
    how="`pagemill run` with the paddleocr engine against `PaddleOCR(…).predict(path)` on one file after the other, as "
    "the documentation's first example has it: defaults, but for the model folders and the runtime, which are the same "
    "on both sides (ONNX Runtime). Scans are A4 pages at 300 dpi, documents A5 pages at 150 dpi.",
    measure=measure,
)
