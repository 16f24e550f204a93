"""What is run: jobs of ours, and the same work as three bare Jobs that a minimal script starts one after the other.

Layer: `benchmarks.scale`. Bare Jobs have the very pods of ours, made by the operator's own builders; they only lack its
label, so that it does not see them, and its owner reference.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from testcluster.api import Json, KubeApi

from benchmarks.harness.processes import BenchmarkError
from benchmarks.scale.player import PLAY_ANNOTATION, Play
from pagemill_core.api.v1alpha1 import API_VERSION
from pagemill_core.work.pod import MANAGED_BY_LABEL
from pagemill_operator.children.jobs import RunParts, finalize_job, plan_job, wave_job
from pagemill_operator.cluster import JOBS, Address
from pagemill_operator.objects import read_custom
from pagemill_operator.settings import Config

PATIENCE_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A job's work: how its pods play, and how many at once."""

    play: Play
    parallelism: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where jobs run and write."""

    namespace: str
    bucket: str
    endpoint: str


def job_of(name: str, shape: Shape, where: Where, *, suspend: bool = False) -> Json:
    """A job of ours. Its manifest is never read: plan pods are played too."""
    template = {"annotations": {PLAY_ANNOTATION: shape.play.model_dump_json()}}
    return {
        "apiVersion": API_VERSION,
        "kind": "OcrJob",
        "metadata": {"name": name, "namespace": where.namespace},
        "spec": {
            "source": {"manifest": {"uri": "s3://library/manifest.csv"}},
            "output": {"uri": f"s3://{where.bucket}/{name}"},
            "storage": {"endpoint": where.endpoint},
            "workers": {"parallelism": shape.parallelism, "template": template},
            **({"suspend": True} if suspend else {}),
        },
    }


def run_bare(api: KubeApi, name: str, shape: Shape, where: Where, config: Config) -> float:
    """Plan, work and finalize as bare Jobs. Returns: seconds from the first request to the last Job's end."""
    began = time.monotonic()
    for job in _bare_jobs(name, shape, where, config):
        place = Address(JOBS, where.namespace).path
        made = api.call("POST", place, job)
        _await_end(api, place, made["metadata"])
    return time.monotonic() - began


def _bare_jobs(name: str, shape: Shape, where: Where, config: Config) -> Iterator[Json]:
    body = job_of(name, shape, where)
    custom = read_custom({**body, "metadata": {**body["metadata"], "uid": f"bare-{name}"}})
    image = config.images.default
    if custom.job is None or image is None:
        raise BenchmarkError(f"{name} is no job: {custom.problem}")
    parts = RunParts(custom=custom, job=custom.job, config=config, image=image, run=f"00000001-{name}", epoch=1)
    for job in (plan_job(parts), wave_job(parts, 1, shape.play.shards, 0), finalize_job(parts, "Complete")):
        del job["metadata"]["ownerReferences"]
        for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
            metadata["labels"] = {**metadata["labels"], MANAGED_BY_LABEL: "bench"}
        yield job


def _await_end(api: KubeApi, place: str, metadata: Json) -> None:
    query = {"fieldSelector": f"metadata.name={metadata['name']}", "resourceVersion": metadata["resourceVersion"]}
    with api.watching(place, timeout_s=PATIENCE_S, **query) as events:
        for event in events:
            for condition in event["object"].get("status", {}).get("conditions") or ():
                if condition["status"] == "True" and condition["type"] == "Complete":
                    return
                if condition["status"] == "True" and condition["type"] == "Failed":
                    raise BenchmarkError(f"{metadata['name']} failed: {condition.get('message')}")
    raise BenchmarkError(f"{metadata['name']} did not end in {PATIENCE_S} s")
