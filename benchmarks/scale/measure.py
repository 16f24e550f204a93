"""All parts of the measurement, one after the other, as checks and tables of the row `operator`.

Layer: `benchmarks.scale`, its top.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from benchmarks.harness.paired import Figures, Median, median, ratio
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, lines
from benchmarks.harness.result import Check, Table
from benchmarks.harness.row import Found, at_most
from benchmarks.scale import parts
from benchmarks.scale.parts import Steady, Storm, percentile
from benchmarks.scale.sizes import Sizes, sizes
from benchmarks.scale.stage import raised

PERCENT = 100.0


def measure(place: Place, name: str) -> Found:
    """Two stages: one for everything in order, a fresh one for the storm."""
    wanted = sizes(place)
    names = [f"job-{number:04d}" for number in range(wanted.jobs)]
    with raised(place) as stage:
        operator = stage.start_operator()
        stage.await_ready(operator)
        _say(f"{len(names)} jobs are created")
        began = time.monotonic()
        parts.create(stage, names, wanted.steady, suspend=True)
        stage.stories.await_all(names, parts.is_answered, parts.PATIENCE_S)
        created_s = time.monotonic() - began
        _say("the operator is started")
        starts = []
        for turn in range(wanted.starts):
            operator, figures = parts.restart(stage, f"late-{turn}")
            starts.append(figures)
        idle = {"created_s": created_s, "rss_mib": operator.memory_mib("VmRSS")}
        _say(f"{starts}; jobs and bare Jobs run in turn")
        paired = parts.pairs(stage, wanted)
        _say(f"{paired}; all jobs are brought to work")
        steady = parts.steady(stage, operator, wanted, names)
    _say(f"{steady.writes_per_job_s:.3f} writes/s, p99 {percentile(steady.staleness_s, 0.99):.1f} s; the storm is made")
    with raised(place) as stage:
        stage.await_ready(stage.start_operator())
        parts.create(stage, names, wanted.storm, suspend=True)
        stage.stories.await_all(names, parts.is_answered, parts.PATIENCE_S)
        _say("the storm")
        storm = parts.storm(stage, wanted, names)
    picture = Picture(
        place.output / f"{name}.png",
        f"{len(names):,} jobs un-suspended at once, the operator killed after {storm.restarted_s:.0f} s",
        "jobs",
        "seconds",
    )
    lines(picture, storm.series)
    return Found(
        checks=_checks(wanted, starts, paired, steady),
        tables=[_work_table(wanted, idle, steady), _storm_table(storm), _cpu_table(steady, storm)],
        samples={**paired, **_samples(starts, idle, steady, storm)},
        notes=_notes(wanted, steady),
        plot=picture.path.name,
    )


def _say(what: str) -> None:
    sys.stderr.write(f"  {time.strftime('%H:%M:%S')} {what}\n")


def _checks(
    wanted: Sizes, starts: Sequence[Figures], paired: Mapping[str, Sequence[Figures]], steady: Steady
) -> list[Check]:
    count = f"{wanted.jobs:,}"
    ratios = ratio(paired["Pagemill"], paired["bare Jobs"], "wall_s")
    value, low, high = ((found - 1) * PERCENT for found in (ratios.value, ratios.low, ratios.high))
    added = Median(value, low, high, ratios.runs)
    p99_s = percentile(steady.staleness_s, 0.99)
    start = median([figures["start_s"] for figures in starts])
    pods = sum((2, steady_pods(wanted)))
    return [
        at_most(f"operator's memory, {count} jobs at work", 300.0, "MiB", median([max(steady.peak_rss_mib)])),
        at_most(f"API writes per job at work, {count} jobs", 0.2, "/s", median([steady.writes_per_job_s])),
        at_most(f"from a commit to the status, p99, {count} jobs of {pods} pods", 15.0, "s", median([p99_s])),
        at_most("wall time added to bare Indexed Jobs", 2.0, "%", added),
        at_most(f"operator's start with {count} jobs", 6.0, "s", start),
    ]


def steady_pods(wanted: Sizes) -> int:
    """Pods that work on one job of the steady part."""
    shape = wanted.steady
    return min(shape.play.shards, 4 * shape.parallelism)


def _work_table(wanted: Sizes, idle: Figures, steady: Steady) -> Table:
    ages = steady.staleness_s
    rows = [
        ["jobs created, until all had their first status, s", f"{idle['created_s']:.1f}"],
        ["memory with all jobs suspended, MiB", f"{idle['rss_mib']:.0f}"],
        ["memory with all jobs at work, most, before and after the kill, MiB", _joined(steady.peak_rss_mib)],
        ["pods in all", f"{wanted.jobs * (2 + steady_pods(wanted)):,}"],
        ["commits", f"{len(ages):,}"],
        ["commit to status, median, p99 and most, s", _joined([parts.middle(ages), percentile(ages, 0.99), ages[-1]])],
        ["commits later than the player meant them, p99, s", f"{percentile(steady.lateness_s, 0.99):.2f}"],
        ["API writes by the operator's count and by the audit log", f"{steady.writes:,}, {steady.audited:,}"],
        ["API writes for each job", f"{steady.writes / wanted.jobs:.1f}"],
        ["seconds at work of a job, mean", f"{steady.active_s / wanted.jobs:.0f}"],
        ["start with all jobs at work: ready, first status, s", _joined(list(steady.restart.values())[:2])],
    ]
    return Table(title="All jobs at work, the operator killed once meanwhile:", columns=["what", "figure"], rows=rows)


def _storm_table(storm: Storm) -> Table:
    rates, edits = storm.write_rates, storm.edits_s
    rows = [
        ["the API server had taken all un-suspends", f"{storm.asked_s:.1f}"],
        ["the operator was killed and started again", f"{storm.restarted_s:.1f}"],
        ["a status spoke of each un-suspend", f"{storm.answered_s:.1f}"],
        ["each status showed the work Job", f"{storm.working_s:.1f}"],
        ["all were complete", f"{storm.complete_s:.1f}"],
    ]
    if edits:
        rows.append(
            ["a person's change of one job meanwhile, median and most", _joined([parts.middle(edits), max(edits)])]
        )
    rows.append(
        ["the API server's writes a second for everybody, median and most", _joined([parts.middle(rates), max(rates)])]
    )
    return Table(title="The storm, seconds from its first request:", columns=["when", "figure"], rows=rows)


def _cpu_table(steady: Steady, storm: Storm) -> Table:
    names = sorted(steady.cpu_s, key=lambda name: -steady.cpu_s[name])
    rows = [[name, f"{steady.cpu_s[name]:.1f}", f"{storm.cpu_s.get(name, 0.0):.1f}"] for name in names]
    return Table(title="CPU seconds of everything that took part:", columns=["process", "at work", "storm"], rows=rows)


def _samples(starts: list[Figures], idle: Figures, steady: Steady, storm: Storm) -> dict[str, list[Figures]]:
    ages = steady.staleness_s
    shares = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
    return {
        "starts": starts,
        "idle": [idle],
        "steady": [
            {
                **{f"staleness_p{share * PERCENT:g}_s": percentile(ages, share) for share in shares},
                "staleness_max_s": ages[-1],
                "peak_rss_mib": max(steady.peak_rss_mib),
                "writes": float(steady.writes),
                "audited_writes": float(steady.audited),
                "active_job_s": steady.active_s,
                "wall_s": steady.wall_s,
                **steady.restart,
                **{f"cpu_{name}_s": seconds for name, seconds in steady.cpu_s.items()},
            }
        ],
        "storm": [
            {
                "asked_s": storm.asked_s,
                "restarted_s": storm.restarted_s,
                "answered_s": storm.answered_s,
                "working_s": storm.working_s,
                "complete_s": storm.complete_s,
                **{f"cpu_{name}_s": seconds for name, seconds in storm.cpu_s.items()},
            }
        ],
        "storm's edits": [{"seconds": seconds} for seconds in storm.edits_s],
        "API server's writes": [{"per_s": rate} for rate in storm.write_rates],
    }


def _notes(wanted: Sizes, steady: Steady) -> list[str]:
    pair = wanted.pair(wanted.pairs.size)
    return [
        f"pairs: {pair.play.shards} pods of {pair.play.work_s:g} s, {pair.parallelism} at once, between one pod that "
        f"plans and one that finalizes, {pair.play.plan_s:g} s each, while {wanted.jobs:,} suspended jobs are there; "
        "the bare side is a script that creates the three Jobs one after the other and watches each",
        f"at work: {wanted.rate:g} jobs a second are un-suspended, {steady.wall_s:.0f} s in all; a commit's age is "
        "measured from outside, by a watch of the jobs",
        "API writes are POST, PATCH and DELETE of any kind, Events included",
        "everything runs on the machine named above: the API server, etcd and the players of the pods take most of it",
    ]


def _joined(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" if value >= PERCENT else f"{value:.2f}" for value in values)
