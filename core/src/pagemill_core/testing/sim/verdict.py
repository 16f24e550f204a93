"""The promises that hold once a world is at rest.

Layer: `core.testing.sim`. Complements `invariants`, which watches each write.
"""

from __future__ import annotations

from dataclasses import replace

from pagemill_core.testing.sim.controller import Controller
from pagemill_core.testing.sim.invariants import Rules, RunFacts, require
from pagemill_core.testing.sim.rows import view_key
from pagemill_core.testing.sim.scheduler import Process
from pagemill_core.testing.sim.world import Job, World
from pagemill_core.work import layout as keys
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import Ledger, Owner, Standing
from pagemill_core.work.lifecycle import Limits


def judge(world: World, rules: Rules) -> None:
    """Check everything that must be true of a world whose processes have ended. Raises: RuleBrokenError."""
    for job in world.jobs:
        if not job.is_deleted:
            is_right = job.outcome in ("Complete", "Failed/OutputInUse")
            require(is_right, "{} ended as {!r} although everything was allowed", job.uid, job.outcome)
        for run in job.finished_runs:
            require(
                rules.entries[int(run[:8])].state == "Finished", "{} ended with {}, which is not finished", job.uid, run
            )
    for seq, entry in rules.entries.items():
        if entry.state == "Finished":
            _judge_finished(world, rules, keys.run_id(seq, entry.work_key))


def _judge_finished(world: World, rules: Rules, run: str) -> None:
    facts = rules.facts(run)
    require(facts.is_complete, "{} is finished with shards missing", run)
    assert facts.pointer is not None
    committed = [row.row for shard in sorted(facts.rows) for row in facts.rows[shard]]
    require(committed == list(range(facts.pointer.items)), "{}: rows committed are {}", run, committed)
    layout = RunLayout(run)
    for segment in range(-(-facts.pointer.shards // keys.SEGMENT_SHARDS)):
        require(world.memory.head(layout.rollup(segment)) is not None, "{} has no rollup of segment {}", run, segment)
    _judge_coverage(rules, run, facts)


def _judge_coverage(rules: Rules, run: str, facts: RunFacts) -> None:
    """Every listed item is either planned here or was left out for a success that earlier work committed and shows."""
    assert facts.pointer is not None
    listed: dict[str, int] = facts.pointer.fingerprint_fields["listed"]
    planned = {row.id for shard in facts.table for row in shard}
    require(planned <= set(listed), "{} plans items that were not listed", run)
    for item in set(listed) - planned:
        sources = [
            earlier
            for earlier, done in rules.runs.items()
            if earlier < run and done.pointer is not None and done.pointer.fingerprint == facts.pointer.fingerprint
            for rows in done.rows.values()
            for row in rows
            if (row.id, row.version, row.status) == (item, listed[item], "succeeded")
        ]
        require(bool(sources), "{} left out {}, which nobody has done", run, item)
        seq = min(int(earlier[:8]) for earlier in sources)
        require(
            rules.view_seq(view_key(item)) >= seq, "{} left out {} of run {}, but its view is missing", run, item, seq
        )
    for shard in facts.rows.values():
        for row in shard:
            if row.status == "succeeded":
                require(rules.view_seq(view_key(row.id)) >= int(run[:8]), "{}: the view of {} is missing", run, row.id)


def reconcile_again(world: World, rules: Rules, times: int) -> None:
    """Ask for finished work again: nothing is claimed, and nothing that succeeded is computed again."""
    if not rules.entries:
        return
    _release_orphan(world, rules)
    runs = dict(rules.entries)
    finished = [entry for _, entry in sorted(runs.items()) if entry.state == "Finished"]
    complete = [job for job in world.jobs if job.outcome == "Complete"]
    for job in complete:
        # A job answered by another's run, since replaced by other work, may ask for its own again.
        is_shown = finished[-1].fingerprint == job.spec.fingerprint
        if is_shown or any(entry.owner == job.uid for entry in finished):
            _reconcile(world, job, times)
    require(rules.entries == runs, "reconciling finished jobs again changed the ledger")
    again = next((job for job in complete if job.spec.fingerprint == finished[-1].fingerprint), None)
    if again is not None:
        _apply_again(world, rules, again)


def _release_orphan(world: World, rules: Rules) -> None:
    """Give up a run that a controller claimed when it woke after its job had ended elsewhere; nobody works on it."""
    seq = max(rules.entries)
    if rules.entries[seq].is_final:
        return

    def body(_process: Process) -> None:
        Ledger(world.writer(), Owner("release")).request(seq, state="GivenUp", reason="Released", owner="")

    world.start("release", body)
    world.scheduler.run()


def _reconcile(world: World, job: Job, times: int) -> None:
    def body(_process: Process) -> None:
        ledger = Ledger(world.writer(), Owner(job.uid))
        for _ in range(times):
            standing = ledger.adopt(job.spec.request()).standing
            require(standing is Standing.COMPLETE, "{} is complete, but was told {}", job.uid, standing)

    world.start(f"again-{job.uid}", body)
    world.scheduler.run()


def _apply_again(world: World, rules: Rules, job: Job) -> None:
    """Delete and apply with a new uid: no item that succeeded is computed again, and without `incremental` none."""
    begin = len(world.computed)
    world.deadly_items.clear()
    done = {
        (row.id, row.version)
        for facts in rules.runs.values()
        if facts.pointer is not None and facts.pointer.fingerprint == job.spec.fingerprint
        for rows in facts.rows.values()
        for row in rows
        if row.status == "succeeded"
    }
    fresh = Job(uid=f"{job.uid}-again", cluster="again", spec=replace(job.spec, limits=Limits(waves=9)))
    world.jobs.append(fresh)
    fresh.controller = world.start(f"controller-{fresh.uid}", Controller(world, rules, fresh))
    world.scheduler.run()
    require(fresh.outcome == "Complete", "{} ended as {}", fresh.uid, fresh.outcome)
    repeated = [item for _, item in world.computed[begin:] if (item, world.source[item]) in done]
    require(not repeated, "applying {} again computed {} again", job.uid, repeated)
    if not job.spec.incremental:
        require(len(world.computed) == begin, "applying {} again computed {}", job.uid, world.computed[begin:])
