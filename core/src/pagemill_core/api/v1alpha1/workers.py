"""Who does the work: how many pods, where, of which size. And the stages inside them.

Layer: `core.api`. `template` is an allow-list: who may create a job must not become more than that, so there is no
service account, host path, image or security context here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, WithJsonSchema

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.engine import FREE_FORM
from pagemill_core.api.v1alpha1.types import (
    CountOrAuto,
    EnvName,
    Fraction,
    Listed,
    LongText,
    Name,
    ObjectName,
    PythonClass,
    Quantity,
    Text,
)

LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=32)]
Annotations = Annotated[dict[LabelKey, LongText], Field(max_length=32)]
Quantities = Annotated[dict[Text, Quantity], Field(max_length=16)]
FreeForm = Annotated[dict[str, JsonValue], WithJsonSchema(FREE_FORM)]


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: Text | None = Field(default=None, description="The taint's key; none with operator Exists means every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="Default Equal.")
    value: Annotated[str, Field(max_length=63)] | None = Field(default=None, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; none means every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="Seconds to stay after a NoExecute taint appeared."
    )


class Affinity(ApiModel):
    """Kubernetes affinity, passed on as given."""

    node_affinity: FreeForm | None = Field(default=None, description="As in a pod's spec.")
    pod_affinity: FreeForm | None = Field(default=None, description="As in a pod's spec.")
    pod_anti_affinity: FreeForm | None = Field(default=None, description="As in a pod's spec.")


class TopologySpread(ApiModel):
    """A Kubernetes topology spread constraint over this job's own pods."""

    max_skew: int = Field(ge=1, le=1000, description="By how many pods two domains may differ.")
    topology_key: Text = Field(description="The node label that makes a domain.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="What the scheduler does when the constraint cannot be met."
    )


class EnvVar(ApiModel):
    """An environment variable with a literal value; secrets come as files, never here."""

    name: EnvName = Field(description="The variable's name.")
    value: LongText = Field(description="Its value.")


class ImagePullSecret(ApiModel):
    """A Secret with registry credentials, in the job's namespace."""

    name: ObjectName = Field(description="The Secret's name.")


class PodTemplate(ApiModel):
    """What may be added to the worker pods."""

    labels: Labels | None = Field(default=None, description="Labels; keys of Pagemill and Kubernetes are refused.")
    annotations: Annotations | None = Field(
        default=None, description="Annotations; keys of Pagemill, Kubernetes and cloud identities are refused."
    )
    affinity: Affinity | None = Field(default=None, description="Affinity, added to the pool's own.")
    tolerations: Annotated[tuple[Toleration, ...], Listed(max_length=32)] | None = Field(
        default=None, description="Tolerations, added to the pool's own."
    )
    topology_spread_constraints: Annotated[tuple[TopologySpread, ...], Listed(max_length=8)] | None = Field(
        default=None, description="How the pods spread over nodes or zones."
    )
    env: Annotated[tuple[EnvVar, ...], Listed(kind="map", map_key="name", max_length=64)] | None = Field(
        default=None, description="Literal environment variables; names that steer the worker itself are refused."
    )
    image_pull_secrets: (
        Annotated[tuple[ImagePullSecret, ...], Listed(kind="map", map_key="name", max_length=8)] | None
    ) = Field(default=None, description="Secrets with registry credentials.")


class Resources(ApiModel):
    """What each pod asks for and may use at most. Without it: the pool's."""

    requests: Quantities | None = Field(default=None, description="Asked of the scheduler, by resource name.")
    limits: Quantities | None = Field(default=None, description="At most, by resource name.")


class Workers(ApiModel):
    """Who does the work. On a laptop: processes of this machine."""

    parallelism: int = Field(default=1, ge=0, le=10_000, description="Pods that work at once; 0 pauses. Default 1.")
    pool: Name = Field(default="cpu", description="The pool of nodes, from the operator's settings. Default cpu.")
    queue: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="The Kueue local queue that admits the work. Default: none."
    )
    priority_class: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Priority of the pods, or of the workload in its queue. Default: the cluster's."
    )
    processes_per_pod: CountOrAuto | None = Field(
        default=None, description="Processes in each pod, or auto: one per core of its limit. Default auto."
    )
    resources: Resources | None = Field(default=None, description="What each pod asks for. Default: the pool's.")
    template: PodTemplate | None = Field(default=None, description="What may be added to the pods.")

    @property
    def effective_queue(self) -> str:
        """The Kueue local queue; empty for none."""
        return "" if self.queue is None else self.queue

    @property
    def effective_priority_class(self) -> str:
        """Priority class; empty for the cluster's default."""
        return "" if self.priority_class is None else self.priority_class

    @property
    def effective_processes_per_pod(self) -> int | str:
        """Processes in each pod, or the word `auto`."""
        return "auto" if self.processes_per_pod is None else self.processes_per_pod

    @property
    def effective_template(self) -> PodTemplate:
        """What is added to the pods."""
        return PodTemplate() if self.template is None else self.template


StageOptions = Annotated[dict[Text, LongText], Field(max_length=32)]


class Stage(ApiModel):
    """One stage of the workers' pipeline: sizes of a built-in one, or a stage of the user's own (`use`)."""

    name: Name = Field(
        description="A built-in stage (fetch, decode, recognise, encode, infer, classify, write), or a new name."
    )
    use: PythonClass | None = Field(
        default=None, description="A stage of one's own, as package.module:Class in the worker image."
    )
    after: Name | None = Field(
        default=None,
        description="Own stages: the stage before it; several after one go by name. Default: just before write.",
    )
    options: StageOptions | None = Field(default=None, description="Own stages: settings given to the class.")
    processes: int | None = Field(default=None, ge=1, le=1024, description="Processes in each pod. Default: measured.")
    cpus: Fraction | None = Field(default=None, description='Cores for each process, such as "0.5". Default: measured.')
    gpus: Fraction | None = Field(default=None, description='GPUs for each process, such as "0.25". Default: measured.')
    memory: Quantity | None = Field(default=None, description="Memory for each process. Default: measured.")
    batch_size: CountOrAuto | None = Field(default=None, description="Items given to the stage at once. Default auto.")
    attempts: int | None = Field(default=None, ge=1, le=10, description="Tries for each item. Default 1.")

    @property
    def effective_batch_size(self) -> int | str:
        """Items given to the stage at once, or the word `auto`."""
        return "auto" if self.batch_size is None else self.batch_size

    @property
    def effective_attempts(self) -> int:
        """Tries for each item."""
        return 1 if self.attempts is None else self.attempts


Stages = Annotated[tuple[Stage, ...], Listed(kind="map", map_key="name", max_length=16)]
