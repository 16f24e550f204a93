"""How much is run: a thousand jobs of ten pods each, or a share of that.

Layer: `benchmarks.scale`, bottom.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.paired import Plan
from benchmarks.harness.place import Place
from benchmarks.scale.jobs import Shape
from benchmarks.scale.player import Play


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """`jobs` of each part; `rate` is how many of them begin a second while all are brought to work.

    A pod of the steady part does two shards, so that some commits come while no Job changes.
    """

    jobs: int = 1000
    rate: float = 4.0
    starts: int = 3
    pairs: Plan = Plan(size=40, pairs=5, warm_size=8)
    steady: Shape = Shape(play=Play(plan_s=5, work_s=200, finalize_s=5, shards=16), parallelism=2)
    storm: Shape = Shape(play=Play(plan_s=1, work_s=2, finalize_s=1, shards=8), parallelism=2)
    kill_after_s: float = 5.0
    edit_every_s: float = 5.0
    pod_s: float = 10.0

    def pair(self, size: int) -> Shape:
        """A job of `size` pods at work, a quarter of them at once."""
        play = Play(plan_s=self.pod_s / 2, work_s=self.pod_s, finalize_s=self.pod_s / 2, shards=size)
        return Shape(play=play, parallelism=size // 4)


def sizes(place: Place) -> Sizes:
    """As usual, scaled, or just enough to see that it works."""
    if place.quick:
        steady = Shape(play=Play(plan_s=1, work_s=12, finalize_s=1, shards=16), parallelism=2)
        plan = Plan(size=8, pairs=1, warm_size=0)
        return Sizes(jobs=20, starts=1, pairs=plan, steady=steady, kill_after_s=1.0, edit_every_s=1.0, pod_s=2.0)
    return Sizes(jobs=max(20, round(1000 * place.scale)))
