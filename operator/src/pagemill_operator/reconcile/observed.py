"""What reconciling sees: the job, its child Jobs, its output, the jobs it waits for, and the settings.

Layer: `operator.reconcile`; pure data and questions to it. Gathered by `observe`, which does the I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pagemill_core.api.v1alpha1 import EmbeddingJob, Job
from pagemill_core.work.lifecycle import Limits
from pagemill_core.work.pod import LastWords, PodStep
from pagemill_operator.objects import Child, Custom, Key
from pagemill_operator.settings import Config, WorkerImage
from pagemill_operator.store_view import StoreSight


@dataclass(frozen=True, slots=True)
class DependencyState:
    """A job that is waited for, as it is now. `path` leads back to the asking job when they wait for each other."""

    key: Key
    exists: bool
    is_complete: bool
    is_failed: bool
    path: tuple[Key, ...] = ()
    output_uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One job and all around it, at one moment. `now_s` is monotonic and comparable with what else ends in `_s`.

    `last_words` are by child's uid: why a failed Job's pod ended. `pod_trouble` says why pods do not start, "" when
    they do; `queue_words` why the queue does not admit the Job that waits for it.
    """

    custom: Custom
    config: Config
    now_s: float
    children: tuple[Child, ...] = ()
    sight: StoreSight = StoreSight()
    dependencies: tuple[DependencyState, ...] = ()
    last_words: Mapping[str, LastWords] = field(default_factory=dict)
    pod_trouble: str = ""
    missing_secrets: tuple[str, ...] = ()
    queue_words: str = ""

    @property
    def own_children(self) -> tuple[Child, ...]:
        """Children of this very object, not of an earlier one of its name."""
        return tuple(child for child in self.children if child.owner_uid == self.custom.uid)

    def child(self, name: str) -> Child | None:
        """The child Job of this name."""
        return next((child for child in self.own_children if child.name == name), None)

    @property
    def source_uri(self) -> str:
        """The output of the job that the source names, "" when it names none; work waits for that job."""
        named = self.custom.job.spec.source_job if self.custom.job is not None else None
        if named is None:
            return ""
        found = (each for each in self.dependencies if (each.key.kind, each.key.name) == (named.kind, named.name))
        return next((each.output_uri for each in found), "")

    def working(self) -> bool:
        """Whether pods that plan or work run now; such time counts against the deadline, waiting for nodes does not."""
        return any(child.ready > 0 and child.step is not PodStep.FINALIZE for child in self.own_children)


def limits_of(job: Job) -> Limits:
    """The job's limits as the rule book wants them."""
    spec = job.spec
    return Limits(
        waves=spec.effective_retries.effective_waves,
        max_failed=spec.effective_retries.failure_limit,
        max_cost=spec.budget.max_cost_amount if spec.budget else None,
        deadline_s=spec.deadline_seconds,
    )


def is_paused(job: Job) -> bool:
    """Whether its owner wants no work now."""
    return job.spec.effective_suspend or job.spec.workers.parallelism == 0


def engine_of(job: Job) -> str:
    """The engine or loader that the worker image must hold."""
    if isinstance(job, EmbeddingJob):
        encoder = job.spec.visual or job.spec.text
        named = encoder.model.loader if encoder is not None else None
        return named or "default"
    return job.spec.effective_engine.effective_name


def image_of(job: Job, config: Config) -> WorkerImage | None:
    """The image that serves this job by today's settings."""
    table = config.images.loaders if isinstance(job, EmbeddingJob) else config.images.engines
    return table.get(engine_of(job)) or config.images.default
