"""Ranks, their reports, metrics and the plot of tensor jobs: nothing here needs torch."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagemill_core.errors import IntegrityError
from pagemill_worker.embed.infer.metrics import Metrics
from pagemill_worker.embed.infer.plot import scatter
from pagemill_worker.embed.infer.rank_files import (
    FetchFacts,
    MachineFacts,
    PartFacts,
    as_json,
    combined,
    rank_report,
    results,
)
from pagemill_worker.embed.infer.ranks import RankMap

BITS_A_ROW = 164_160  # 5 x 32 x 32 values of 32 bits and 5 of 64: the published figure
MACHINE = MachineFacts(
    processor="x86_64",
    architecture=("64bit", "ELF"),
    machine="x86_64",
    system="Linux",
    platform="Linux-test",
    cores=2,
    memory_bytes=4 << 30,
)
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def make_part(path: str, rows: int, cpu_s: float = 2.0, batch_size: int = 512, **changes: Any) -> PartFacts:
    given: dict[str, Any] = {
        "path": path,
        "rows": rows,
        "batches": -(-rows // batch_size),
        "batch_size": batch_size,
        "input_bits": rows * BITS_A_ROW,
        "size_bytes": rows * BITS_A_ROW // 8 + 1000,
        "cpu_s": cpu_s,
        "wall_s": 2.5,
        "allocated_bytes": rows * 1_000_000,
        "self_allocated_bytes": 1_000_000,
        "device": "cpu",
        "machine": MACHINE,
    }
    return PartFacts(**{**given, **changes})


def reference_deal(files: list[str], world_size: int) -> list[Any]:
    """The initialiser's deal as the contract words it: ceil(left / ranks left) files; a string, a list, or null."""
    left, dealt = list(files), []
    for rank in range(world_size):
        share = math.ceil(len(left) / (world_size - rank))
        mine, left = left[:share], left[share:]
        dealt.append(None if not mine else mine[0] if share == 1 else mine)
    return dealt


@pytest.mark.parametrize(
    ("partitions", "world_size"), [(0, 3), (1, 1), (10, 3), (130, 8), (130, 130), (5, 9), (131, 130), (1000, 7)]
)
def test_rank_map_deals_files_as_the_reference_does(partitions: int, world_size: int) -> None:
    files = [f"{number}.pt" for number in range(partitions)]
    ranks = RankMap(partitions, world_size)

    dealt = [[files[at] for at in ranks.files_of(rank)] for rank in range(world_size)]

    want = [
        [] if mine is None else [mine] if isinstance(mine, str) else mine for mine in reference_deal(files, world_size)
    ]
    assert dealt == want
    assert [ranks.rank_of(at) for at in range(partitions)] == [rank for rank, mine in enumerate(want) for _ in mine]
    assert list(ranks.ranks_with_data) == [rank for rank, mine in enumerate(want) if mine]
    sizes = [len(mine) for mine in want]
    assert max(sizes) - min(sizes) <= 1


def test_rank_map_of_ten_thousand_partitions_is_no_work() -> None:
    ranks = RankMap(10_000, 700)
    started = time.process_time()

    found = [ranks.rank_of(partition) for partition in range(10_000)]

    assert sorted(set(found)) == list(range(700))
    assert time.process_time() - started < 1


def test_rank_report_has_the_reference_keys_types_and_units() -> None:
    fetch = FetchFacts(requests=3, total_s=0.6, min_s=0.1, max_s=0.3, first_at=NOON, last_at=NOON)

    report = rank_report(4, 8, [make_part("s3://b/5.pt", 1253, 5.8145, fetch=fetch)], "results/1")

    want_types = {
        "total_cpu_time (seconds)": float,
        "total_cpu_memory (MB)": float,
        "execution_time (seconds/batch)": float,
        "num_batches": int,
        "batch_size": int,
        "device": str,
        "throughput_bps": float,
        "sample_persec": float,
        "result_path": str,
        "data_path": str,
    }
    assert {key: type(report[key]) for key in want_types} == want_types
    assert list(report)[: len(want_types)] == list(want_types)
    assert (report["num_batches"], report["rows"], report["rank"], report["world_size"]) == (3, 1253, 4, 8)
    assert report["throughput_bps"] * report["total_cpu_time (seconds)"] == pytest.approx(1253 * BITS_A_ROW)
    assert report["execution_time (seconds/batch)"] == pytest.approx(5.8145 / (1253 / 512))
    assert report["total_cpu_memory (MB)"] == 1253
    assert (report["s3_num_requests"], report["s3_avg_time"]) == (3, pytest.approx(0.2))
    assert report["s3_first_request_time"] == NOON.isoformat()
    assert (report["wall_seconds"], report["ram_info (GB)"]) == (2.5, 4.0)


def test_rank_report_of_several_files_lists_each_once_and_adds_up() -> None:
    parts = [make_part("1.pt", 512, batches=1), make_part("1.pt", 88, batches=1), make_part("10.pt", 600, batches=2)]

    report = rank_report(0, 1, parts, "results")

    assert report["data_path"] == ["1.pt", "10.pt"]
    assert (report["rows"], report["num_batches"], report["partitions"]) == (1200, 4, 2)
    assert "s3_num_requests" not in report


def test_combined_lists_all_ranks_beyond_a_thousand_in_order() -> None:
    ranks = RankMap(1203, 1203)
    reports = {rank: rank_report(rank, 1203, [make_part(f"{rank}.pt", 7)], "r") for rank in reversed(range(1203))}

    found = json.loads(combined(ranks.ranks_with_data, reports, dict.fromkeys(range(1203), 7)))

    assert [report["rank"] for report in found] == list(range(1203))


def test_combined_with_more_ranks_than_files_wants_those_with_data_only() -> None:
    reports = {rank: rank_report(rank, 9, [make_part(f"{rank}.pt", 7)], "r") for rank in range(2)}

    assert len(json.loads(combined(RankMap(2, 9).ranks_with_data, reports))) == 2


@pytest.mark.parametrize(
    ("held", "planned", "want"),
    [([0, 2], {}, "1 of 3 ranks have no report: 1"), ([0, 1, 2], {1: 8}, "reports of ranks 1")],
    ids=["missing", "short"],
)
def test_combined_with_a_rank_lost_refuses(held: list[int], planned: dict[int, int], want: str) -> None:
    reports = {rank: rank_report(rank, 3, [make_part(f"{rank}.pt", 7)], "r") for rank in held}

    with pytest.raises(IntegrityError, match=want):
        combined(range(3), reports, planned)


def reference_summary(files: dict[str, str]) -> list[Any]:
    """The summariser as the contract words it: every .json but its own, by key order of strings, in one flat list."""
    return [json.loads(files[key]) for key in sorted(files) if key.endswith(".json") and "combined_data" not in key]


def reference_stats(runs: list[list[Any]]) -> list[dict[str, float]]:
    """stats.py as the contract words it: a row a run (times without 1.5 IQR outliers averaged, the rest summed) and
    the mean of the rows."""
    rows = []
    for run in runs:
        times = np.array([rank["total_cpu_time (seconds)"] for rank in run])
        low, high = np.percentile(times, [25, 75])
        reach = 1.5 * (high - low)
        kept = times[(times >= low - reach) & (times <= high + reach)]
        bits = [rank["throughput_bps"] * rank["total_cpu_time (seconds)"] for rank in run]
        rows.append(
            {
                "time": float(kept.mean()),
                "memory": sum(rank["total_cpu_memory (MB)"] for rank in run),
                "throughput": sum(rank["throughput_bps"] for rank in run),
                "total_bits": sum(bits),
            }
        )
    return [*rows, {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}]


def test_reference_readers_accept_the_files_with_the_right_totals() -> None:
    rows_of = [5113] * 129 + [240]
    ranks = RankMap(130, 13)
    reports = {
        rank: rank_report(
            rank, 13, [make_part(f"{at + 1}.pt", rows_of[at], 20.0 + at) for at in ranks.files_of(rank)], "r"
        )
        for rank in range(13)
    }

    summarised = reference_summary({f"r/{rank}.json": as_json(report) for rank, report in reports.items()})
    ours = json.loads(combined(ranks.ranks_with_data, reports))

    assert sorted(summarised, key=lambda report: report["rank"]) == ours
    theirs, again = reference_stats([summarised])[0], reference_stats([ours])[0]
    assert theirs == pytest.approx(again)
    assert theirs["total_bits"] == pytest.approx(sum(rows_of) * BITS_A_ROW)
    assert sum(rows_of) == 659_817
    table = io.StringIO()
    csv.DictWriter(table, theirs).writerows([{key: round(value, 2) for key, value in theirs.items()}])
    assert table.getvalue().count(",") == 3


def test_results_of_a_run_say_the_whole_under_the_keys_of_one() -> None:
    parts = [make_part("1.pt", 1024, 5.814478928), make_part("2.pt", 229, 1.0, profile="<Total>")]

    found = json.loads(as_json(results(parts, 2, metrics={"mae": 0.1}, wall_s=4.0)))

    assert (found["rows"], found["num_batches"], found["partitions"], found["world_size"]) == (1253, 3, 2, 2)
    assert found["avg_profile"] == "<Total>"
    assert found["cpu_info"]["architecture"] == ["64bit", "ELF"]
    assert (found["metrics"], found["run_wall_seconds"]) == ({"mae": 0.1}, 4.0)
    assert found["self_cpu_memory (MB)"] == 2.0


def test_machine_facts_of_here_are_written_as_json() -> None:
    here = MachineFacts.here()

    assert here.cores >= 1
    assert MachineFacts.model_validate_json(here.model_dump_json()) == here


def test_metrics_of_known_errors_are_those_computed_by_hand() -> None:
    true = np.array([0.0, 1.0, 0.25, 3.0])
    predicted = np.array([0.1, 1.0, 0.25, 1.0])
    metrics = Metrics()

    metrics.add(predicted[:1], true[:1])
    metrics.add(predicted[1:], true[1:])

    found = metrics.as_json()
    scaled = np.array([0.1, 0.0, 0.0, -0.5])
    assert found["mae"] == pytest.approx(2.1 / 4)
    assert found["rmse"] == pytest.approx(math.sqrt(4.01 / 4))
    assert found["r2"] == pytest.approx(1 - 4.01 / ((true - true.mean()) ** 2).sum())
    assert found["bias"] == pytest.approx(scaled.mean())
    assert found["nmad"] == pytest.approx(1.4826 * np.median(np.abs(scaled - np.median(scaled))))
    assert found["outlier_fraction"] == 0.25
    assert (found["rows"], found["nmad_rows"]) == (4, 4)


def test_metrics_of_many_parts_equal_those_of_one() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 2, 10_001)
    predicted = true + rng.normal(0, 0.1, true.shape)
    whole, parts = Metrics(), Metrics()

    whole.add(predicted, true)
    for start in range(0, len(true), 97):
        parts.add(predicted[start : start + 97], true[start : start + 97])

    assert parts.as_json() == pytest.approx(whole.as_json())


def test_metrics_over_the_sample_size_thin_evenly_whatever_the_parts() -> None:
    values = np.arange(10_000, dtype=np.float64)
    whole, parts = Metrics(sample_rows=1000), Metrics(sample_rows=1000)

    whole.add(values, values)
    for start in range(0, 10_000, 33):
        parts.add(values[start : start + 33], values[start : start + 33])

    assert np.array_equal(whole.sample(), parts.sample())
    assert set(np.diff(whole.sample()[:, 0])) == {16.0}
    assert whole.as_json()["rows"] == 10_000


def test_metrics_count_rows_that_are_not_finite_and_leave_them_out() -> None:
    metrics = Metrics()

    metrics.add(np.array([1.0, np.nan, 3.0]), np.array([1.0, 1.0, np.inf]))

    assert (metrics.as_json()["rows"], metrics.as_json()["rows_not_finite"]) == (1, 2)
    assert metrics.as_json()["r2"] is None


def test_metrics_of_values_that_are_no_redshifts_leave_those_figures_out() -> None:
    metrics = Metrics()

    metrics.add(np.array([-5.0, 1.0]), np.array([-4.0, 1.0]))

    assert (metrics.as_json()["mae"], metrics.as_json()["nmad"], metrics.as_json()["bias"]) == (0.5, None, None)


@pytest.mark.parametrize("rows", [0, 300, 30_000], ids=["none", "few", "many"])
def test_scatter_is_a_picture_whatever_the_rows(rows: int) -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 1, rows)
    pairs = np.stack([true + rng.normal(0, 0.05, rows), true], axis=1)
    metrics = Metrics()
    metrics.add(pairs[:, 0], pairs[:, 1])

    png = scatter(pairs, metrics.as_json(), "redshift")

    assert Image.open(io.BytesIO(png)).size[0] > 600
