"""The simulated controller: adopts a run, looks, decides by `lifecycle.decide`, acts, and looks again.

Layer: `core.testing.sim`. It stands for the operator and for `pagemill run` alike. Any number of controllers of one
job may run at once (a hung one and its replacement), and jobs of several clusters may meet on one output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from pagemill_core.errors import OutputBusyError, OutputInUseError
from pagemill_core.testing.sim.invariants import Rules
from pagemill_core.testing.sim.planner import Planner
from pagemill_core.testing.sim.scheduler import Process
from pagemill_core.testing.sim.worker import Finalizer, Worker
from pagemill_core.testing.sim.world import Job, World
from pagemill_core.work import finalize
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.ledger import EXPIRY_S, RENEW_EVERY_S, Adoption, Held, Ledger, Owner, Standing
from pagemill_core.work.lifecycle import Decision, Observed, Step, decide
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer, RunReport, Totals, WaveRecord
from pagemill_core.work.tracker import Tracker
from pagemill_core.work.usage import UsageReader
from pagemill_core.work.waves import completions_for, create_wave, newest_wave, read_wave, to_ranges

_SHORT_S = 15.0
_LONG_S = 150.0  # below RENEW_EVERY_S, so that a waiting controller still renews in time


class _Watched:
    """The run that a controller works on, with what it has read of it so far."""

    def __init__(self, adoption: Adoption, now_s: float) -> None:
        self.held: Held = adoption.held
        self.adoption = adoption
        self.layout = RunLayout(adoption.held.run)
        self.pointer: PlanPointer | None = None
        self.tracker: Tracker | None = None
        self.usage: UsageReader | None = None
        self.renewed_s = now_s
        self.wave = 0


class Controller:
    """One controller process for one job; ends when the job has an outcome."""

    def __init__(self, world: World, rules: Rules, job: Job) -> None:
        self._world = world
        self._rules = rules
        self._job = job
        self._writer = world.writer()
        self._ledger = Ledger(self._writer, Owner(job.uid, job.uid))
        self._spec = job.spec  # as of the current pass; the user may edit it meanwhile
        self._watched: _Watched | None = None
        self._pause_s = _SHORT_S
        self._acts: Mapping[Step, Callable[[_Watched, Decision], None]] = {
            Step.PLAN: self._plan,
            Step.START_WAVE: self._start_wave,
            Step.WAIT: self._wait,
            Step.PAUSE: self._pause,
            Step.START_SEALING: self._start_sealing,
            Step.SEAL: lambda watched, _decision: self._run_finalizer(watched, "seal"),
            Step.FINALIZE: self._finish,
            Step.STOP: self._stop,
            Step.GIVE_UP: self._give_up,
            Step.DONE: self._forget,
        }

    def __call__(self, _process: Process) -> None:
        while not self._job.outcome and not self._job.is_deleted:
            steps = self._world.scheduler.steps
            try:
                self._pass()
            except OutputBusyError:
                self._lose()
            # A pass that only looked is followed by a longer wait, or a schedule would consist of looking.
            is_quiet = self._world.scheduler.steps - steps <= 12
            self._pause_s = min(_LONG_S, self._pause_s * 2) if is_quiet else _SHORT_S
            self._writer.clock.sleep(self._pause_s)
        if self._job.is_deleted:
            self._leave()

    # -- one pass ---------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        self._spec = self._job.spec
        watched = self._watched
        if watched is None or watched.held.entry.work_key != self._spec.work_key:
            watched = self._adopt()
            if watched is None:
                return
        self._refresh(watched)
        decision = decide(self._look(watched), self._spec.limits)
        self._acts[decision.step](watched, decision)

    def _adopt(self) -> _Watched | None:
        job = self._job
        adoption = self._ledger.adopt(self._spec.request())
        if adoption.standing is Standing.COMPLETE:
            self._rules.completed(adoption.held)
            self._end("Complete", adoption.held.run)
            return None
        if self._watched is not None:
            self._world.stop_pods(job.cluster, self._watched.held.run)
        self._watched = _Watched(adoption, self._writer.clock.monotonic_s())
        return self._watched

    def _refresh(self, watched: _Watched) -> None:
        """Renew in time, notice a take-over, and pass on what the user wants."""
        job = self._job
        now_s = self._writer.clock.monotonic_s()
        active_s = now_s - watched.renewed_s
        if active_s >= RENEW_EVERY_S - _LONG_S:
            watched.held = self._ledger.renew(watched.held, min(active_s, EXPIRY_S))
            watched.renewed_s = now_s
        else:
            watched.held = self._ledger.read(watched.held.entry.seq)
            if not self._ledger.is_mine(watched.held.entry):
                raise OutputBusyError(f"{watched.held.run} was taken over")
        entry = watched.held.entry
        if entry.desired != job.desired and not entry.is_final:
            watched.held = self._ledger.update(watched.held, desired=job.desired)

    def _look(self, watched: _Watched) -> Observed:
        if watched.pointer is None:
            watched.pointer = read_plan(self._writer, watched.layout)
            if watched.pointer is not None:
                watched.tracker = Tracker(self._writer, watched.layout, watched.pointer.shards)
                watched.usage = UsageReader(self._writer, watched.layout)
        entry = watched.held.entry
        if watched.pointer is None or watched.tracker is None or watched.usage is None:
            return Observed(entry.state, entry.desired, None, Totals())
        totals = watched.tracker.poll(thorough=self._world.rng.random() < 0.5)
        self._rules.counted(watched.layout, totals)
        watched.wave = newest_wave(self._writer, watched.layout)
        pods = self._world.pods_of(self._job.cluster, watched.held.run, f"wave-{watched.wave}")
        limits = self._spec.limits
        return Observed(
            state=entry.state,
            desired=entry.desired,
            planned_items=watched.pointer.items,
            totals=totals,
            wave=watched.wave,
            wave_is_over=watched.wave == 0 or (pods is not None and self._world.are_over(pods)),
            spent=watched.usage.spent().cost if limits.max_cost is not None else Decimal(0),
            active_s=entry.active_seconds,
        )

    # -- acting -----------------------------------------------------------------------------------------------------

    def _plan(self, watched: _Watched, _decision: Decision) -> None:
        pods = self._pods(watched, "plan")
        failed = next((pod for pod in pods if isinstance(pod.error, OutputInUseError)), None)
        if failed is not None:
            self._ledger.update(watched.held, state="GivenUp", reason="OutputInUse")
            self._end("Failed/OutputInUse", "")
        elif self._world.are_over(pods):
            earlier = watched.adoption.predecessors
            planner = Planner(self._world, self._spec, watched.held.run, earlier)
            pods.append(self._world.start("planner", planner))

    def _start_wave(self, watched: _Watched, _decision: Decision) -> None:
        assert watched.tracker is not None
        ranges = to_ranges(watched.tracker.missing())
        wave = create_wave(self._writer, watched.layout, WaveRecord(number=watched.wave + 1, ranges=ranges))
        self._start_workers(watched, wave)

    def _wait(self, watched: _Watched, _decision: Decision) -> None:
        """Give a wave its pods that was created by a predecessor which died before it could."""
        if self._world.pods_of(self._job.cluster, watched.held.run, f"wave-{watched.wave}") is None:
            wave = read_wave(self._writer, watched.layout, watched.wave)
            assert wave is not None
            self._start_workers(watched, wave)

    def _start_workers(self, watched: _Watched, wave: WaveRecord) -> None:
        shards = sum(last - first + 1 for first, last in wave.ranges)
        completions = completions_for(shards, self._world.habits.parallelism)
        key = (self._job.cluster, watched.held.run, f"wave-{wave.number}")
        if key in self._world.pods:
            return
        self._world.pods[key] = [
            self._world.start(
                f"worker-{wave.number}-{index}",
                Worker(self._world, self._rules, watched.held.run, wave.number, index, completions),
            )
            for index in range(completions)
        ]

    def _pause(self, watched: _Watched, _decision: Decision) -> None:
        self._world.stop_pods(self._job.cluster, watched.held.run)

    def _start_sealing(self, watched: _Watched, decision: Decision) -> None:
        watched.held = self._ledger.update(watched.held, state="Sealing", reason=decision.reason)

    def _finish(self, watched: _Watched, _decision: Decision) -> None:
        success = finalize.read_success(self._writer, watched.layout)
        if success is None:
            self._run_finalizer(watched, "succeed")
            return
        self._ledger.update(watched.held, state="Finished", fingerprint=success.fingerprint)
        self._end("Complete", watched.held.run)

    def _stop(self, watched: _Watched, decision: Decision) -> None:
        if not self._wind_down(watched, decision):
            return
        if self._world.habits.releases_on_stop:
            self._ledger.update(watched.held, owner="", reason=decision.reason)
        self._end(f"Failed/{decision.reason}", "")

    def _give_up(self, watched: _Watched, decision: Decision) -> None:
        if self._wind_down(watched, decision):
            self._ledger.update(watched.held, state="GivenUp", reason=decision.reason)
            self._end(f"Failed/{decision.reason}", "")

    def _wind_down(self, watched: _Watched, decision: Decision) -> bool:
        """Stop pods, publish what is committed, write the report. Returns: whether that is done."""
        self._world.stop_pods(self._job.cluster, watched.held.run)
        if watched.tracker is None:
            return True
        role = f"publish-{self._pods_started(watched)}"
        if not any(pod.went_well for pod in self._pods(watched, role)):
            self._run_finalizer(watched, role)
            return False
        report = RunReport(
            run=watched.held.run, kind=self._spec.kind, outcome=decision.reason, totals=watched.tracker.totals
        )
        finalize.write_report(self._writer, watched.layout, watched.held.entry.epoch, report)
        return True

    def _pods_started(self, watched: _Watched) -> int:
        """How many pods did something of this run; each winding-down after more of them publishes again."""
        of_run = [(role, pods) for (_, run, role), pods in self._world.pods.items() if run == watched.held.run]
        return sum(len(pods) for role, pods in of_run if not role.startswith("publish"))

    def _forget(self, watched: _Watched, _decision: Decision) -> None:
        """Somebody ended the run; adopt afresh."""
        self._watched = None

    def _lose(self) -> None:
        if self._watched is not None:
            self._world.stop_pods(self._job.cluster, self._watched.held.run)
        self._watched = None

    def _leave(self) -> None:
        """The job was deleted: its pods go, and the run is free for whoever applies it again."""
        self._world.stop_pods(self._job.cluster)
        if self._watched is not None:
            self._ledger.update(self._watched.held, owner="")

    # -- pods -------------------------------------------------------------------------------------------------------

    def _pods(self, watched: _Watched, role: str) -> list[Process]:
        return self._world.pods.setdefault((self._job.cluster, watched.held.run, role), [])

    def _run_finalizer(self, watched: _Watched, role: str) -> None:
        pods = self._pods(watched, role)
        if self._world.are_over(pods):
            finalizer = Finalizer(
                self._world, self._rules, watched.held.run, role.partition("-")[0], self._hand_over(watched)
            )
            pods.append(self._world.start(f"finalizer-{role}", finalizer))

    def _hand_over(self, watched: _Watched) -> Totals | None:
        """The command hands its own count over, the operator's finalize pod counts again."""
        if watched.tracker is None or not watched.tracker.is_complete or self._world.rng.random() < 0.5:
            return None
        return watched.tracker.totals

    def _end(self, outcome: str, run: str) -> None:
        if self._job.spec is not self._spec or self._job.outcome:
            return  # edited or ended meanwhile: a status written with an old resourceVersion is refused
        self._job.outcome = outcome
        if run:
            self._job.finished_runs.append(run)
