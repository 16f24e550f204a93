"""Sweeps: their file, their points, resuming, the rows, the laws, the tables and the plots."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pagemill_cli.bench.fit import fit_amdahl, fit_usl
from pagemill_cli.bench.job import digest_of, job_of, read_document
from pagemill_cli.bench.measured import Measurement, best_figure, read_rows, to_csv
from pagemill_cli.bench.reference_tree import read_tree
from pagemill_cli.bench.report import write_report
from pagemill_cli.bench.runners import ClusterRunner, LocalRunner, PointRun
from pagemill_cli.bench.summary import compare, summarise
from pagemill_cli.bench.sweep import Partitions, Point, Size, Sweep, points_of, read_sweep
from pagemill_cli.bench.sweep_run import SweepRun, measured
from pagemill_cli.cluster.jobs import Submitted
from pagemill_cli.cluster.views import JobView, read_job
from pagemill_cli.testing.command import run_command
from pagemill_core.api.load import load_jobs
from pagemill_core.errors import (
    ClusterUnavailableError,
    InvalidSpecError,
    PagemillError,
    SourceError,
    TooManyFailuresError,
)
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.bench.pricing import FunctionUse, ServerlessPrices, per_count, pool_cost, serverless_cost

JOB = """\
apiVersion: pagemill.dev/v1alpha1
kind: EmbeddingJob
metadata: {name: redshift}
spec:
  source: {tensors: {uri: partitions}}
  inference: {adapter: torchScript, weights: redshift.ts.pt, batchSize: 512, labels: "2"}
  output: {uri: out}
"""
SWEEP = """\
name: redshift
job: job.yaml
output: results
repetitions: 2
axes:
  worldSize: [1, 2, 4]
  batchSize: [128, 512]
prices: {poolPerHour: "0.10", memoryGb: 10}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def report_of(rank: int, rows: int, seconds: float) -> dict[str, Any]:
    return {"rank": rank, "rows": rows, "wall_seconds": seconds, "fetch_seconds": 0.5, "input_bytes": rows * 20_520}


class FakeRunner:
    """Runs a point by adding up `a + b / n`, and writes the reports that a run would."""

    source = "local"

    def __init__(self, stores: dict[str, MemoryStore]) -> None:
        self.stores = stores
        self.points: list[str] = []
        self.dies_at = 0

    def run(self, document: dict[str, Any], point: Point) -> PointRun:
        if len(self.points) + 1 == self.dies_at:
            raise TooManyFailuresError("the machine burns")
        self.points.append(point.id)
        world = point.world_size or 1
        store = self.stores.setdefault(document["spec"]["output"]["uri"], MemoryStore("out"))
        reports = [report_of(rank, 1000 // world, 8 / world) for rank in range(world)]
        store.put("results/combined_data.json", json.dumps(reports).encode())
        return PointRun(started_at="", wall_s=2 + 8 / world + 0.01 * point.repetition, items=4, failed=0)


def sweep_run(folder: Path, runner: FakeRunner) -> SweepRun:
    sweep = read_sweep(folder / "sweep.yaml")
    return SweepRun(
        sweep=sweep,
        document=read_document(Path(sweep.job)),
        runner=runner,
        open_output=lambda uri: runner.stores[uri],
        outputs=str(folder / "results" / "outputs"),
        records=folder / "results" / "points",
    )


# The file and its points


def test_sweep_points_go_repetition_by_repetition(folder: Path) -> None:
    points = points_of(read_sweep(folder / "sweep.yaml"))

    assert [point.id for point in points[:3]] == ["w1-b128-r1", "w2-b128-r1", "w4-b128-r1"]
    assert len({point.id for point in points}) == len(points) == 12
    assert [point.repetition for point in points] == [1] * 6 + [2] * 6


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"axes": {"worldSize": [0]}}, "axes.worldSize.0"),
        ({"axes": {"worldSize": [1, 1]}}, "names a value twice"),
        ({"axes": {"worldsize": [1]}}, "axes.worldsize"),
        ({"axes": {"partitions": [{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}]}}, "a name twice"),
        ({"name": "../up"}, "name"),
        ({"repetitions": 0}, "repetitions"),
    ],
)
def test_sweep_file_that_makes_no_sense_is_refused_by_field(folder: Path, change: dict[str, Any], want: str) -> None:
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**yaml.safe_load(SWEEP), **change}))

    with pytest.raises(InvalidSpecError, match=want):
        read_sweep(folder / "sweep.yaml")


def test_sweep_of_too_many_points_is_refused(folder: Path) -> None:
    sweep = read_sweep(folder / "sweep.yaml")
    many = sweep.axes.model_copy(update={"world_size": tuple(range(1, 9000))})

    with pytest.raises(InvalidSpecError, match="more than 10000"):
        points_of(sweep.model_copy(update={"axes": many}))


def test_job_of_a_point_is_the_sweeps_job_with_its_sizes(folder: Path) -> None:
    document = read_document(folder / "job.yaml")
    size = Size(name="small", memory_gb=Decimal("1.5"), cpus=Decimal(2))
    point = Point(world_size=4, batch_size=64, partitions=Partitions(name="25MB", uri="/data/25"), resources=size)

    made = job_of(document, point, "/scratch/1", name="redshift-w4")

    (job,) = load_jobs(yaml.safe_dump(made), origin="made")
    spec = made["spec"]
    assert (spec["inference"]["worldSize"], spec["inference"]["batchSize"]) == (4, 64)
    assert spec["inference"]["weights"] == str(folder / "redshift.ts.pt")
    assert (spec["source"]["tensors"]["uri"], spec["output"]["uri"]) == ("/data/25", "/scratch/1")
    assert spec["workers"]["parallelism"] == 4
    assert spec["workers"]["resources"]["requests"] == {"memory": "1.5Gi", "cpu": "2"}
    assert job.metadata.name == "redshift-w4"
    assert document["spec"]["inference"]["batchSize"] == 512


def test_job_without_a_batch_refuses_that_axis(folder: Path) -> None:
    document = read_document(folder / "job.yaml")
    del document["spec"]["inference"]

    with pytest.raises(InvalidSpecError, match="axes.batchSize"):
        job_of(document, Point(batch_size=4), "/o", name="n")


# Running, resuming


def test_sweep_is_resumed_where_it_stopped(folder: Path) -> None:
    first, second = FakeRunner({}), FakeRunner({})
    first.dies_at = 6
    with pytest.raises(TooManyFailuresError):
        sweep_run(folder, first).run()

    rows = sweep_run(folder, second).run()
    third = FakeRunner({})
    again = sweep_run(folder, third).run()

    assert (len(first.points), len(second.points), third.points) == (5, 7, [])
    assert first.points + second.points == [row.point for row in rows]
    assert again == rows
    tries = sorted(path.name for path in (folder / "results" / "points" / "tries").iterdir())
    assert "w4-b512-r1.2" in tries  # the try that failed is not taken up again
    assert len(tries) == 13


def test_sweep_whose_job_changed_refuses_to_mix(folder: Path) -> None:
    sweep_run(folder, FakeRunner({})).run()
    (folder / "job.yaml").write_text(JOB.replace('"2"', '"1"'))

    with pytest.raises(InvalidSpecError, match="was run with another job"):
        sweep_run(folder, FakeRunner({})).run()


def test_sweep_record_that_is_damaged_is_named(folder: Path) -> None:
    sweep_run(folder, FakeRunner({})).run()
    (folder / "results" / "points" / "w1-b128-r1.json").write_text("{")

    with pytest.raises(InvalidSpecError, match="w1-b128-r1.json is no record"):
        sweep_run(folder, FakeRunner({})).done()


def test_digest_of_a_job_does_not_depend_on_the_order_of_fields() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_measured_row_has_rows_bits_times_and_both_costs(folder: Path) -> None:
    sweep = read_sweep(folder / "sweep.yaml")
    run = PointRun(started_at="", wall_s=36.0, items=8, failed=1, cpu_s=60.0)

    row = measured(sweep, Point(world_size=2), run, [report_of(0, 600, 10.0), report_of(1, 400, 20.0)])

    assert (row.rows, row.ranks, row.failed, row.input_bits) == (1000, 2, 1, 164_160_000)
    assert (row.rank_time_mean_s, row.rank_time_max_s, row.wall_s) == (15.0, 20.0, 36.0)
    assert row.cost_pool == Decimal("0.002")  # two workers, a hundredth of an hour
    assert row.cost_serverless is not None
    assert float(row.cost_serverless) == pytest.approx(10 * 31 * 0.0000166667 + 2 * 2e-7)


def test_measured_row_of_a_job_without_ranks_counts_items(folder: Path) -> None:
    row = measured(
        read_sweep(folder / "sweep.yaml"), Point(), PointRun(started_at="", wall_s=1.0, items=8, failed=0), []
    )

    assert (row.rows, row.ranks, row.rank_time_mean_s, row.world_size) == (8, None, None, None)


# The command that a local point runs


def local_runner(folder: Path, script: str) -> LocalRunner:
    (folder / "command.py").write_text(script)
    return LocalRunner(FakeClock(), (sys.executable, str(folder / "command.py")))


def test_local_runner_gives_the_command_the_job_and_the_processes(folder: Path) -> None:
    runner = local_runner(
        folder,
        "import json, sys, yaml\n"
        "job = yaml.safe_load(open(sys.argv[2]))\n"
        "assert sys.argv[1] == 'run' and sys.argv[-1] == '3', sys.argv\n"
        "print(json.dumps({'items': {'succeeded': len(job['spec']), 'failed': 0}}))\n",
    )

    run = runner.run(read_document(folder / "job.yaml"), Point(world_size=3))

    assert (run.items, run.failed) == (3, 0)
    assert run.cpu_s is not None
    assert run.cpu_s > 0
    assert (run.peak_rss_bytes or 0) > 1 << 20


def test_local_runner_of_a_command_that_fails_says_how(folder: Path) -> None:
    runner = local_runner(folder, "import sys; sys.stderr.write('no space left'); sys.exit(3)")

    with pytest.raises(TooManyFailuresError, match=r"point w3-r1 ended with status 3: no space left"):
        runner.run(read_document(folder / "job.yaml"), Point(world_size=3))


# Prices


@pytest.mark.parametrize(
    ("memory_gb", "seconds", "want"),
    [("0.125", "11.722", 0.024628), ("0.5", "6.678", 0.0559), ("10", "5.8145", 0.9693)],
)
def test_serverless_price_of_a_thousand_calls_is_the_formulas(memory_gb: str, seconds: str, want: float) -> None:
    use = FunctionUse(requests=1000, seconds_each=Decimal(seconds), memory_gb=Decimal(memory_gb))

    assert float(serverless_cost(use).total) == pytest.approx(want, rel=1e-3)


def test_serverless_disk_is_paid_beyond_the_free_half_gigabyte() -> None:
    def storage(size: str) -> Decimal:
        use = FunctionUse(requests=10, seconds_each=Decimal(20), memory_gb=Decimal(1), storage_gb=Decimal(size))
        return serverless_cost(use).storage

    assert (storage("0.5"), storage("0.1")) == (0, 0)
    assert storage("10.5") == Decimal(10) * 200 * ServerlessPrices().storage_gb_second


def test_pool_price_is_paid_by_the_hour_and_worker() -> None:
    assert pool_cost(Decimal(1800), 4, Decimal("0.20")) == Decimal("0.4")
    assert per_count(Decimal("0.4"), 200, 1000) == Decimal(2)
    assert per_count(Decimal(1), 0, 1000) is None


# Laws


def amdahl_times(a: float, b: float, noise: float, sizes: tuple[int, ...], runs: int = 5) -> dict[int, list[float]]:
    rng = np.random.default_rng(1)
    return {n: [(a + b / n) * (1 + noise * rng.normal()) for _ in range(runs)] for n in sizes}


def test_amdahl_fit_finds_the_law_and_its_interval_holds_it() -> None:
    fit = fit_amdahl(amdahl_times(2.0, 30.0, 0.03, (1, 2, 4, 8, 16)))

    assert fit is not None
    a, b, serial = (fit.parameters[name] for name in ("a_s", "b_s", "serial_fraction"))
    assert (fit.method, fit.runs, fit.world_sizes) == ("bootstrap", 25, (1, 2, 4, 8, 16))
    assert a.low < 2.0 < a.high
    assert b.low < 30.0 < b.high
    assert serial.value == pytest.approx(1 / 16, abs=0.02)
    assert fit.time_s(4) == pytest.approx(9.5, rel=0.1)
    assert fit.r2 > 0.98


def test_amdahl_fit_of_single_runs_takes_its_interval_from_the_residuals() -> None:
    fit = fit_amdahl(amdahl_times(2.0, 30.0, 0.02, (1, 2, 4, 8), runs=1))

    assert fit is not None
    assert fit.method == "residuals"
    assert fit.parameters["a_s"].low < 2.0 < fit.parameters["a_s"].high


def test_amdahl_fit_of_as_many_runs_as_parameters_is_not_bounded() -> None:
    fit = fit_amdahl({1: [32.0], 2: [17.0]})

    assert fit is not None
    assert fit.parameters["a_s"].value == pytest.approx(2.0)
    assert fit.parameters["a_s"].low == -math.inf


def test_usl_fit_finds_contention_coherence_and_the_peak() -> None:
    times = {n: [100 * (1 + 0.05 * (n - 1) + 0.001 * n * (n - 1)) / n] * 2 for n in (1, 2, 4, 8, 16, 32)}

    fit = fit_usl(times)

    assert fit is not None
    assert fit.parameters["sigma"].value == pytest.approx(0.05)
    assert fit.parameters["kappa"].value == pytest.approx(0.001)
    assert fit.parameters["peak_world_size"].value == pytest.approx(math.sqrt(0.95 / 0.001))


@pytest.mark.parametrize(
    ("fit", "times"), [(fit_amdahl, {1: [1.0]}), (fit_usl, {1: [1.0], 2: [0.6]}), (fit_amdahl, {})]
)
def test_fit_of_too_few_world_sizes_is_none(fit: Callable[..., object], times: dict[int, list[float]]) -> None:
    assert fit(times) is None


# Tables and plots


def make_rows(sweep: str = "ours", scale: float = 1.0, **more: Any) -> list[Measurement]:
    rng = np.random.default_rng(0)
    return [
        Measurement(
            sweep=sweep,
            source="local",
            point=f"w{n}-r{repetition}",
            world_size=n,
            repetition=repetition,
            wall_s=scale * (1 + 8 / n) * (1 + 0.01 * rng.normal()),
            rows=1000,
            cost_serverless=Decimal("0.001"),
            cost_pool=Decimal("0.002"),
            **more,
        )
        for repetition in (1, 2, 3)
        for n in (1, 2, 4)
    ]


def test_report_of_a_sweep_is_table_parquet_fits_and_picture(tmp_path: Path) -> None:
    rows = make_rows(batch_size=512)

    markdown = write_report(rows, tmp_path, "redshift")

    assert read_rows(tmp_path) == rows
    table = pq.read_table(tmp_path / "results.parquet")
    assert (table.num_rows, str(table.schema.field("wall_s").type), str(table.schema.field("rows").type)) == (
        9,
        "double",
        "int64",
    )
    assert "| ours, batch 512 | 4 | 3 |" in markdown
    assert "t = a + b / n" in markdown
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert [fit["law"] for fit in fits] == ["amdahl", "usl"]
    assert fits[0]["parameters"]["a_s"]["value"] == pytest.approx(1, abs=0.3)
    with Image.open(tmp_path / "sweep.png") as drawn:
        assert drawn.size[0] > 1000


def test_report_without_world_sizes_draws_what_was_varied(tmp_path: Path) -> None:
    rows = [row.model_copy(update={"world_size": None, "batch_size": 2**row.repetition}) for row in make_rows()]

    markdown = write_report(rows, tmp_path, "batches")

    assert "| ours, batch 4 | – | 3 |" in markdown
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "fits.json").read_text()) == []


def test_summary_efficiency_is_the_speed_per_worker_that_is_left() -> None:
    rows = [row.model_copy(update={"wall_s": {1: 8.0, 2: 4.0, 4: 4.0}[row.world_size or 0]}) for row in make_rows()]

    points = summarise(rows).points

    assert [(point.world_size, point.efficiency, point.rows_per_s) for point in points] == [
        (1, 1.0, 125.0),
        (2, 1.0, 250.0),
        (4, 0.5, 250.0),
    ]


def test_comparison_of_two_sweeps_tells_what_the_repetitions_bear_out() -> None:
    found, alone = compare(make_rows("a"), make_rows("b", 1.5))
    same, _ = compare(make_rows("a"), make_rows("b", 1.0))
    more, only = compare(make_rows("a"), [row for row in make_rows("b") if row.world_size != 4])

    assert [one.verdict for one in found] == ["slower"] * 3
    assert found[0].ratio == pytest.approx(1.5, rel=0.05)
    assert {one.verdict for one in same} == {"no difference seen"}
    assert (alone, only, len(more)) == ([], ["world 4: only in the first"], 2)


def test_rows_without_a_common_time_are_not_compared() -> None:
    reference = [row.model_copy(update={"wall_s": None, "rank_time_mean_s": 1.0}) for row in make_rows()]

    with pytest.raises(InvalidSpecError, match="no time that all of them"):
        best_figure([*make_rows(), *reference])
    assert best_figure(reference) == "rank_time_mean_s"


def test_results_that_are_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="holds no results.csv"):
        read_rows(tmp_path)
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidSpecError, match="is no table of a sweep"):
        read_rows(tmp_path)


# The reference's tree


def write_tree(root: Path, ranks: int = 8) -> None:
    for data, size in (("1GB", ranks), ("total", 2 * ranks)):
        for run in (1, 2, 3):
            count = size - 3 if (data, run) == ("total", 2) else size
            write_run(root / "result-partition-100MB" / data / str(run), count, 512)
    write_run(root / "result-partition-100MB" / "1GB" / "Batches" / "64" / "1", ranks, 64)


def write_run(folder: Path, ranks: int, batch_size: int) -> None:
    folder.mkdir(parents=True)
    reports = [
        {
            "total_cpu_time (seconds)": 500.0 if rank == 0 else 20.0 + 0.1 * rank,
            "total_cpu_memory (MB)": 71_461.0,
            "batch_size": batch_size,
            "num_batches": 10,
            "throughput_bps": 5113 * 164_160 / (500.0 if rank == 0 else 20.0 + 0.1 * rank),
            "sample_persec": 5113 / (500.0 if rank == 0 else 20.0 + 0.1 * rank),
            "device": "cpu",
            "data_path": f"{rank + 1}.pt",
        }
        for rank in range(ranks)
    ]
    (folder / "combined_data.json").write_text(json.dumps(reports))


def test_reference_tree_is_read_with_the_studys_own_figures(tmp_path: Path) -> None:
    write_tree(tmp_path)

    rows = read_tree(tmp_path)

    assert [row.point for row in rows] == [
        "100MB-1GB-r1",
        "100MB-1GB-r2",
        "100MB-1GB-r3",
        "100MB-1GB-b64-r1",
        "100MB-total-r1",
        "100MB-total-r2",
        "100MB-total-r3",
    ]
    first = rows[0]
    assert (first.rows, first.input_bits, first.world_size) == (8 * 5113, 8 * 5113 * 164_160, 8)
    assert first.rank_time_mean_s == pytest.approx(20.4)  # the rank of 500 s is an outlier
    assert first.rank_time_max_s == 500.0


def test_reference_run_that_lost_ranks_is_kept_and_noted(tmp_path: Path) -> None:
    write_tree(tmp_path)

    markdown = write_report(read_tree(tmp_path), tmp_path / "out", "reference", plot=False)

    assert "100MB-total-r2: 3 of 16 ranks are missing" in markdown


def test_reference_and_new_runs_stand_in_one_table(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree")
    ours = [row.model_copy(update={"rank_time_mean_s": row.wall_s}) for row in make_rows()]

    markdown = write_report([*read_tree(tmp_path / "tree"), *ours], tmp_path / "out", "both")

    assert "| reference, batch 512, 100MB, 1GB | 8 | 3 |" in markdown
    assert "| ours | 4 | 3 |" in markdown
    assert "mean time of a rank's loop" in markdown


def test_reference_tree_without_runs_or_with_damaged_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no result-partition"):
        read_tree(tmp_path)
    write_tree(tmp_path)
    path = next(tmp_path.rglob("combined_data.json"))
    path.write_text('[{"batch_size": 1}]')
    with pytest.raises(SourceError, match="rank 0"):
        read_tree(tmp_path)
    path.write_text("[]")
    with pytest.raises(SourceError, match="holds no rank"):
        read_tree(tmp_path)
    shutil.rmtree(path.parent)


def test_rows_survive_a_table_of_text(tmp_path: Path) -> None:
    row = Measurement(sweep="s", source="cluster", point="p", repetition=1, note='a "note", with commas', failed=0)

    (tmp_path / "results.csv").write_text(to_csv([row]))

    assert read_rows(tmp_path) == [row]


def test_sweep_model_is_not_changed_by_its_reading(folder: Path) -> None:
    sweep = read_sweep(folder / "sweep.yaml")

    assert Sweep.model_validate_json(sweep.model_dump_json(by_alias=True)) == sweep


# A point on a cluster


class FakeJobs:
    """Jobs of a cluster that end after `looks` looks, as `conditions` say."""

    def __init__(self, looks: int, conditions: list[dict[str, Any]]) -> None:
        self.looks = looks
        self.conditions = conditions
        self.submitted: list[str] = []
        self.deleted: list[str] = []
        self.fails_at = 0

    def submit(self, job: Any, *, dry_run: bool, force: bool) -> Any:
        self.submitted.append(job.metadata.name)
        return Submitted(self._view(job.metadata.name, ended=False), is_new=True)

    def find(self, ref: Any) -> JobView:
        self.looks -= 1
        if self.looks == self.fails_at and self.fails_at:
            raise ClusterUnavailableError("no answer")
        return self._view(ref.name, ended=self.looks <= 0)

    def delete(self, job: JobView) -> None:
        self.deleted.append(job.name)

    def _view(self, name: str, *, ended: bool) -> JobView:
        status: dict[str, Any] = {"observedGeneration": 1}
        if ended:
            status |= {
                "conditions": self.conditions,
                "items": {"total": 8, "succeeded": 7, "failed": 1, "skipped": 0, "alreadyDone": 0},
                "startTime": "2026-01-01T12:00:00Z",
                "completionTime": "2026-01-01T12:01:30Z",
            }
        body = {"metadata": {"name": name, "generation": 1}, "spec": {}, "status": status}
        return read_job(body, "EmbeddingJob")


def condition(kind: str, reason: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": "so it is",
        "lastTransitionTime": "2026-01-01T12:00:00Z",
    }


def on_cluster(folder: Path, jobs: FakeJobs, limit_s: float = 3600) -> PointRun:
    document = job_of(read_document(folder / "job.yaml"), Point(world_size=2), "s3://sky/out", name="redshift-w2")
    document["spec"]["source"]["tensors"]["uri"] = "s3://sky/in"
    return ClusterRunner(jobs, FakeClock(), limit_s=limit_s).run(document, Point(world_size=2))  # type: ignore[arg-type]


def test_cluster_runner_waits_for_its_job_and_takes_it_away(folder: Path) -> None:
    jobs = FakeJobs(5, [condition("Complete", "Completed")])
    jobs.fails_at = 2

    run = on_cluster(folder, jobs)

    assert (run.wall_s, run.items, run.failed, run.cpu_s) == (90.0, 7, 1, None)
    assert (jobs.submitted, jobs.deleted) == (["redshift-w2"], ["redshift-w2"])


def test_cluster_runner_of_a_job_that_failed_says_why_and_leaves_it(folder: Path) -> None:
    jobs = FakeJobs(2, [condition("Failed", "TooManyFailures")])

    with pytest.raises(TooManyFailuresError, match="TooManyFailures: so it is"):
        on_cluster(folder, jobs)
    assert jobs.deleted == []


def test_cluster_runner_gives_up_after_its_limit(folder: Path) -> None:
    with pytest.raises(PagemillError, match="did not end in 60 s"):
        on_cluster(folder, FakeJobs(10_000, []), limit_s=60)


# The commands


def test_bench_commands_report_compare_and_import(folder: Path) -> None:
    write_report(make_rows("before"), folder / "before", "before", plot=False)
    write_report(make_rows("after", 1.5), folder / "after", "after", plot=False)
    write_tree(folder / "tree")

    compared = run_command("bench", "compare", folder / "before", folder / "after", "-o", "json")
    reported = run_command("bench", "report", folder / "before", "--no-plot")
    imported = run_command("bench", "import", folder / "tree", folder / "published", "--no-plot")

    assert [point["verdict"] for point in compared.json["points"]] == ["slower"] * 3
    assert "efficiency" in reported.out
    assert (imported.status, len(read_rows(folder / "published"))) == (0, 7)


def test_bench_run_without_its_file_says_so(folder: Path) -> None:
    told = run_command("bench", "run", folder / "nothing.yaml")

    assert (told.status, "there is no such file" in told.err) == (78, True)
