"""The tesseract engine against the ways people run Tesseract: GNU parallel on all cores, one loop over pytesseract."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.pages import pages, repeated
from benchmarks.harness.paired import Figures, Median, Plan, Side, interleave, ratio
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError, run
from benchmarks.harness.row import Found, Row, at_least
from benchmarks.rows.reading import Choose, Reading, figures, loop_side, pagemill_side, speeds

SIZE, PAIRS, QUICK_SIZE, WARM_SIZE = 120, 3, 6, 6
LOOP = "pytesseract loop"
PARALLEL = "GNU parallel"


def measure(place: Place) -> Found:
    """All three in turn over the same pages."""
    files = pages(place, "mixed")

    def choose(size: int) -> list[Path]:
        return repeated(files, size)

    loop = loop_side(LOOP, place.python("benchmarks.sides.pytesseract_loop"), lambda size: list(map(str, choose(size))))
    sides = (pagemill_side(Reading(place, "tesseract", choose)), _parallel_side(place, choose), loop)
    samples = interleave(sides, place.plan(Plan(SIZE, PAIRS, WARM_SIZE), QUICK_SIZE))
    ours, parallel, single = samples.values()
    picture = Picture(place.output / f"{ROW.name}.png", "Tesseract, the same pages", "pages/s")
    bars(picture, {"tesseract": {name: [run["pages_per_s"] for run in runs] for name, runs in samples.items()}})
    return Found(
        checks=[
            at_least(f"tesseract engine against {PARALLEL}", 1.3, "×", ratio(ours, parallel, "pages_per_s")),
            at_least(f"tesseract engine against one {LOOP}", 5.0, "×", ratio(ours, single, "pages_per_s")),
        ],
        tables=[speeds(samples)],
        samples=samples,
        notes=[
            "the engine is the Tesseract of the tesserocr package, the others the one installed on the system; all use "
            "the system's language data",
            f"CPU s a page, theirs / ours: {PARALLEL} {_shown(ratio(parallel, ours, 'cpu_s_per_page'))}, "
            f"{LOOP} {_shown(ratio(single, ours, 'cpu_s_per_page'))}. On a busy machine pages/s flatter Pagemill: each "
            "of its processes is a session of its own, and Linux shares cores by session",
        ],
        plot=picture.path.name,
    )


def _parallel_side(place: Place, choose: Choose) -> Side:
    """`parallel -j <cores> tesseract <page> <result>`: the result's time is when the page was finished."""
    program = shutil.which("parallel")
    if program is None:
        raise BenchmarkError("GNU parallel is not installed: apt-get install parallel tesseract-ocr")

    def go(size: int) -> Figures:
        folder = place.folder("parallel")
        names = [f"{path}\n{folder / f'page_{number:05}'}" for number, path in enumerate(choose(size))]
        jobs = str(place.processes)
        command = place.command([program, "--will-cite", "-j", jobs, "-N2", "tesseract", "{1}", "{2}"])
        done = run(replace(command, stdin="\n".join(names).encode()))
        results = sorted(folder.glob("*.txt"))
        if len(results) != size:
            raise BenchmarkError(f"GNU parallel and tesseract made {len(results)} of {size} results")
        words = sum(len(path.read_text(encoding="utf-8").split()) for path in results)
        return figures(done, [path.stat().st_mtime for path in results], words, in_flight=place.processes)

    return Side(PARALLEL, go)


def _shown(found: Median) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


ROW = Row(
    name="tesseract",
    question="Is the tesseract engine faster than the usual ways to run Tesseract?",
    how="`pagemill run` with the tesseract engine, against `parallel tesseract {} out` with one job a core, and "
    "against one Python process that calls `pytesseract.image_to_data` on one file after another; defaults everywhere.",
    measure=measure,
)
