"""What a job says of its built-in stages: how many processes and threads, how large, how many tries.

Layer: `worker.stages`; pure. A field that would change nothing is refused, with the one that would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from pagemill_core.api.quantities import parse_quantity
from pagemill_core.api.v1alpha1.workers import Stage
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.stages.pipeline import Pipeline

_MODEL_FIELDS = ("processes", "cpus", "gpus", "memory", "attempts")
FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fetch": ("processes",),
        "decode": ("processes",),
        "recognise": _MODEL_FIELDS,
        "encode": (*_MODEL_FIELDS, "batch_size"),
        "infer": _MODEL_FIELDS,
        "classify": _MODEL_FIELDS,
        "write": (),
    }
)
"""What of a built-in stage a job may say. `processes` of fetch and decode are threads: they share them."""
OWN_FIELDS = ("attempts", "batch_size")
_SHOWN = MappingProxyType({"batch_size": "batchSize"})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes that a job gives; None where it leaves them to the worker. `prepare_threads` are a process's."""

    processes: int | None = None
    cpus: Decimal | None = None
    gpus: Decimal | None = None
    memory_bytes: int | None = None
    attempts: int | None = None
    batch_size: int | None = None
    prepare_threads: int | None = None

    def processes_on(self, cores: int, gpu_count: int, otherwise: int) -> int:
        """Processes on a machine: as the job says, else as many as its shares of cores or GPUs leave room for.

        `otherwise` is the answer where the job says none of these.
        """
        if self.processes is not None:
            return self.processes
        fits = [
            max(1, there * int(1 / share) if share < 1 and of_gpus else int(Decimal(there) / share))
            for there, share, of_gpus in ((cores, self.cpus, False), (gpu_count, self.gpus, True))
            if share and there
        ]
        return min(fits) if fits else otherwise


def sizes_of(pipeline: Pipeline, stages: Sequence[Stage]) -> Sizes:
    """The sizes of a job's built-in stages. Raises: InvalidSpecError for a field that the stage does not have."""
    for stage in stages:
        _check(stage)
    built_in = {stage.name: stage for stage in stages if stage.use is None}
    model = built_in.get(pipeline.model)
    threads = [
        stage.processes
        for name, stage in built_in.items()
        if name in ("fetch", "decode") and stage.processes is not None
    ]
    found = Sizes(prepare_threads=max(threads, default=None))
    if model is None:
        return found
    batch = model.effective_batch_size
    return Sizes(
        processes=model.processes,
        cpus=Decimal(model.cpus) if model.cpus is not None else None,
        gpus=Decimal(model.gpus) if model.gpus is not None else None,
        memory_bytes=int(parse_quantity(model.memory)) if model.memory is not None else None,
        attempts=model.attempts,
        batch_size=batch if isinstance(batch, int) else None,
        prepare_threads=found.prepare_threads,
    )


def gpu_environments(sizes: Sizes, processes: int, gpus: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    """What each process's environment says of GPUs: which of `gpus` (their names for CUDA) it sees.

    Processes take turns, so that each GPU gets as many as its share allows; nothing where the job gives no share or the
    machine has no GPU. A share above 1 is that many GPUs. Raises: InvalidSpecError when they do not fit.
    """
    if sizes.gpus is None or not gpus:
        return ()
    each = max(1, math.ceil(sizes.gpus))
    room = len(gpus) // each if sizes.gpus >= 1 else len(gpus) * int(1 / sizes.gpus)
    if processes > room:
        raise InvalidSpecError(
            f"stages: {processes} processes of {sizes.gpus} GPUs each do not fit on {len(gpus)}",
            advice="give fewer processes, or a smaller share",
        )
    shown = [[gpus[(number * each + offset) % len(gpus)] for offset in range(each)] for number in range(processes)]
    return tuple({"CUDA_VISIBLE_DEVICES": ",".join(names)} for names in shown)


def _check(stage: Stage) -> None:
    known = OWN_FIELDS if stage.use is not None else FIELDS[stage.name]
    given = [name for name in (*_MODEL_FIELDS, "batch_size") if getattr(stage, name) is not None and name not in known]
    if given:
        fields = ", ".join(_SHOWN.get(name, name) for name in known) or "nothing"
        what = "a stage of your own runs in the model's processes; it takes" if stage.use is not None else "it takes"
        raise InvalidSpecError(
            f"stages: {stage.name}: {_SHOWN.get(given[0], given[0])} cannot be set; {what} {fields}",
            advice="remove it; processes are sized by the stage that holds the model",
        )
