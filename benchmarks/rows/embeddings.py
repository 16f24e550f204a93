"""`pagemill run` of EmbeddingJobs against the loops of the models' own documentation, and against the model alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import models, photos, texts
from benchmarks.harness.machine import has_bfloat16
from benchmarks.harness.paired import Figures, Median, Plan, Side, interleave, median, ratio
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError, Command, Finished, run
from benchmarks.harness.result import Check, Table
from benchmarks.harness.row import Found, Row, at_least

OPENCLIP_TARGET, OPENCLIP_TARGET_FLOAT32 = 3.0, 1.5
CEILING_TARGET = 0.90
SENTENCE_TARGET = 1.5
COSINE_TARGET = 0.999
LOOP_BATCH = 16
PICTURES_PER_SHARD, TEXTS_PER_SHARD = 8, 128  # moments are those of commits: few would say little
PULL, LOOP, CEILING, SENTENCES = "pagemill run", "open_clip's loop", "the model alone", "sentence-transformers"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One measurement: what is encoded, and where vectors are left for comparing."""

    place: Place
    model: Path
    folder: Path

    @property
    def vectors(self) -> Path:
        return self.folder / "theirs.npy"

    @property
    def output(self) -> Path:
        return self.folder / "out"


def measure(place: Place) -> Found:
    """Pictures, then texts."""
    pictures, picture_checks = _measure_pictures(place)
    sentences, text_checks = _measure_texts(place)
    samples = {f"pictures: {side}": runs for side, runs in pictures.items()}
    samples |= {f"texts: {side}": runs for side, runs in sentences.items()}
    _plot(place, samples)
    return Found(
        checks=[*picture_checks, *text_checks],
        tables=[_table(samples)],
        samples=samples,
        notes=[
            "items/s from the first committed shard to the last; whole run: start, model loading, planning, dataset "
            "and report included",
            "ViT-B/32 has seeded random weights, MiniLM its real ones; what a forward pass costs does not depend on "
            "them",
            "pictures are JPEG files of 1024 × 1536: reading their compressed data alone, which no scaled decoding "
            "avoids, takes an eighth of what ViT-B/32 in bfloat16 takes, so a larger model comes nearer to its ceiling",
        ],
        plot=f"{ROW.name}.png",
    )


# -- pictures ----------------------------------------------------------------------------------------------------------


def _measure_pictures(place: Place) -> tuple[dict[str, list[Figures]], list[Check]]:
    model = models.vit_b_32(place)
    files = photos.photos(place)
    encoding = Encoding(place, model, place.folder("pictures"))
    sides = (_pagemill_pictures(encoding, files), _openclip(encoding, files), _ceiling(encoding))
    found = interleave(sides, place.plan(Plan(size=384, pairs=3, warm_size=32), quick_size=32))
    target = OPENCLIP_TARGET if has_bfloat16() else OPENCLIP_TARGET_FLOAT32
    label = "images/s, ViT-B/32, 1024 × 1536 JPEG, all cores"
    return found, [
        at_least(f"{label}, against open_clip's documented loop", target, "×", _speed(found, LOOP)),
        at_least(f"{label}, against the model alone", CEILING_TARGET, "×", _speed(found, CEILING)),
        _likeness("picture", "open_clip's", encoding),
    ]


def _pagemill_pictures(encoding: Encoding, files: Sequence[Path]) -> Side:
    def go(size: int) -> Figures:
        manifest = encoding.folder / "manifest.csv"
        rows = (f"photo_{number:05},{files[number % len(files)]}\n" for number in range(size))
        manifest.write_text("canonical_id,absolute_image_path\n" + "".join(rows), encoding="utf-8")
        spec = {
            "source": {"manifest": {"uri": str(manifest)}},
            "visual": {"model": {"uri": str(encoding.model)}},
            "sharding": {"itemsPerShard": PICTURES_PER_SHARD},
        }
        return _pagemill(encoding, spec, size)

    return Side(PULL, go)


def _openclip(encoding: Encoding, files: Sequence[Path]) -> Side:
    def go(size: int) -> Figures:
        pictures = [str(files[number % len(files)]) for number in range(size)]
        work = {
            "model": str(encoding.model),
            "pictures": pictures,
            "batch": LOOP_BATCH,
            "vectors": str(encoding.vectors),
        }
        done = run(_fed(encoding.place.python("benchmarks.sides.openclip_loop"), work))
        return _figures(done, json.loads(done.stdout)["finished"])

    return Side(LOOP, go)


def _ceiling(encoding: Encoding) -> Side:
    def go(size: int) -> Figures:
        place = encoding.place
        work = {
            "model": {"uri": str(encoding.model), "cache": str(place.work)},
            "processes": place.processes,
            "count": size,
        }
        variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = run(_fed(place.python("benchmarks.sides.encoder_ceiling", **variables), work))
        return _figures(done, json.loads(done.stdout)["finished"])

    return Side(CEILING, go)


# -- texts -------------------------------------------------------------------------------------------------------------


def _measure_texts(place: Place) -> tuple[dict[str, list[Figures]], list[Check]]:
    encoding = Encoding(place, models.mini_lm(), place.folder("texts"))
    sides = (_pagemill_texts(encoding), _sentences(encoding))
    found = interleave(sides, place.plan(Plan(size=8192, pairs=3, warm_size=256), quick_size=256))
    label = "texts/s, all-MiniLM-L6-v2, mixed lengths, all cores"
    return found, [
        at_least(f"{label}, against sentence-transformers' encode", SENTENCE_TARGET, "×", _speed(found, SENTENCES)),
        _likeness("text", "sentence-transformers'", encoding),
    ]


def _pagemill_texts(encoding: Encoding) -> Side:
    def go(size: int) -> Figures:
        spec = {
            "source": {"texts": {"uri": str(texts.texts(encoding.place, size)), "idColumn": "id"}},
            "text": {"model": {"name": "all-minilm-l6-v2"}},
            "sharding": {"itemsPerShard": TEXTS_PER_SHARD},
        }
        return _pagemill(encoding, spec, size)

    return Side(PULL, go)


def _sentences(encoding: Encoding) -> Side:
    def go(size: int) -> Figures:
        work = {
            "model": str(encoding.model),
            "texts": str(texts.texts(encoding.place, size)),
            "vectors": str(encoding.vectors),
        }
        done = run(_fed(encoding.place.python("benchmarks.sides.sentence_loop"), work))
        answer = json.loads(done.stdout)
        return _as_figures(done, answer["rows"], answer["rows"] / answer["seconds"])

    return Side(SENTENCES, go)


# -- both --------------------------------------------------------------------------------------------------------------


def _pagemill(encoding: Encoding, spec: Mapping[str, Any], size: int) -> Figures:
    """Run a job into an empty folder."""
    place = encoding.place
    output = place.folder(f"{encoding.folder.name}/out")
    job = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "EmbeddingJob",
        "metadata": {"name": "bench"},
        "spec": {**spec, "output": {"uri": str(output), "formats": ["parquet"]}},
    }
    path = encoding.folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
    log, count = str(encoding.folder / "encoders.log"), str(place.processes)
    done = run(place.pagemill("run", str(path), "--quiet", "--output", "json", "--processes", count, "--log", log))
    moments = [moment for finished, rows in _markers(output) for moment in [finished] * rows]
    if len(moments) != size:
        raise BenchmarkError(f"pagemill run encoded {len(moments)} of {size} items")
    return _figures(done, moments)


def _markers(output: Path) -> list[tuple[float, int]]:
    """When each shard was finished, and how many of its items succeeded."""
    import datetime as dt

    found = [json.loads(path.read_bytes()) for path in output.glob(".pagemill/*/commit/*/*") if path.is_file()]
    return [(dt.datetime.fromisoformat(one["finished"]).timestamp(), one["items"]["succeeded"]) for one in found]


def _figures(done: Finished, moments: Sequence[float]) -> Figures:
    """Items a second from the first group that was finished together to the last."""
    ordered = sorted(moments)
    first = ordered[0]
    later = [moment for moment in ordered if moment > first]
    seconds = ordered[-1] - first
    return _as_figures(done, len(ordered), len(later) / seconds if seconds else len(ordered) / done.wall_s)


def _as_figures(done: Finished, count: int, speed: float) -> Figures:
    return {
        "items": float(count),
        "items_per_s": speed,
        "whole_run_items_per_s": count / done.wall_s,
        "cpu_s_per_item": done.cpu_s / count,
        "wall_s": done.wall_s,
    }


def _speed(found: Mapping[str, list[Figures]], other: str) -> Median:
    return ratio(found[PULL], found[other], "items_per_s")


def _likeness(what: str, whose: str, encoding: Encoding) -> Check:
    label = f"cosine of each {what}'s row with {whose}, the lowest"
    return at_least(label, COSINE_TARGET, "", _lowest_cosine(encoding))


def _lowest_cosine(encoding: Encoding) -> Median:
    """Of the last run's rows, each with its counterpart."""
    import pyarrow.parquet as pq

    table = pq.read_table(encoding.output / "embeddings.parquet", columns=["embedding"])
    ours = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    theirs = np.load(encoding.vectors).astype(np.float32)
    if ours.shape != theirs.shape:
        raise BenchmarkError(f"rows of shape {ours.shape} beside {theirs.shape}")
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return median([float(((ours * theirs).sum(axis=1) / lengths).min())])


def _table(samples: Mapping[str, list[Figures]]) -> Table:
    rows = []
    for name, runs in samples.items():
        middle = {key: median([each[key] for each in runs]).value for key in runs[0]}
        speeds = [f"{middle[key]:.1f}" for key in ("items_per_s", "whole_run_items_per_s")]
        rows.append([name, f"{middle['items']:.0f}", *speeds, f"{middle['cpu_s_per_item'] * 1000:.1f}"])
    columns = ["side", "items", "items/s", "items/s, whole run", "CPU ms an item, whole run"]
    return Table(title="Medians of the rounds:", columns=columns, rows=rows)


def _plot(place: Place, samples: Mapping[str, list[Figures]]) -> None:
    groups: dict[str, dict[str, list[float]]] = {}
    for name, runs in samples.items():
        what, _, side = name.partition(": ")
        groups.setdefault(what, {})[side] = [each["items_per_s"] for each in runs]
    best = {what: max(max(values) for values in sides.values()) for what, sides in groups.items()}
    shares = {
        what: {side: [value / best[what] for value in values] for side, values in sides.items()}
        for what, sides in groups.items()
    }
    bars(Picture(place.output / f"{ROW.name}.png", "Encoding, all cores", "items/s, of the best run"), shares)


def _fed(command: Command, work: object) -> Command:
    return Command(command.arguments, command.environment, command.folder, command.log, json.dumps(work).encode())


ROW = Row(
    name="embeddings",
    question="How fast are pictures and texts encoded, beside the models' own loops and beside the model alone?",
    how="`pagemill run` from files into a folder with dataset, merged table and report, against open_clip's "
    "documented loop (default preprocessing, float32, one process, every thread), against N processes that run forward "
    "passes over pictures that lie ready, and against sentence-transformers' encode with its defaults.",
    measure=measure,
)
