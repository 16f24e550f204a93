"""The job as its pods see it.

Layer: `operator.children`; pure.
"""

from __future__ import annotations

from pagemill_core.api.v1alpha1 import Job
from pagemill_core.ids import canonical_json


def job_json(job: Job) -> str:
    """The job as canonical JSON: its spec, its name and nothing that changes with every write to the object."""
    given = job.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"status", "metadata"})
    metadata = {"name": job.metadata.name, "namespace": job.metadata.namespace, "uid": job.metadata.uid}
    return canonical_json(
        {**given, "metadata": {name: value for name, value in metadata.items() if value is not None}}
    ).decode()
