"""What is mounted into a worker pod: the job, scratch space, Secrets as files, claims, models.

Layer: `operator.children`; pure. Nothing here can name a path of the node: there is no hostPath.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pagemill_core.api.v1alpha1 import Job, OcrJob
from pagemill_core.work.pod import API_KEY_PATH, CA_PATH, JOB_ANNOTATION, JOB_PATH, STORE_SECRET_PATH
from pagemill_operator.cluster import JsonObject
from pagemill_operator.settings import ModelVolume, Pool, WorkerImage

READ_ONLY_FILES = 0o444


@dataclass
class Mounts:
    """A pod's volumes and its container's mounts, which belong together."""

    volumes: list[JsonObject] = field(default_factory=list)
    mounts: list[JsonObject] = field(default_factory=list)

    def add(self, name: str, path: str, source: JsonObject, *, read_only: bool = True) -> None:
        self.volumes.append({"name": name, **source})
        mount: JsonObject = {"name": name, "mountPath": path}
        self.mounts.append({**mount, "readOnly": True} if read_only else mount)


def mounts_for(job: Job, pool: Pool, image: WorkerImage) -> Mounts:
    """All volumes of a worker pod."""
    found = Mounts()
    annotation = {"fieldRef": {"fieldPath": f"metadata.annotations['{JOB_ANNOTATION}']"}, "path": JOB_PATH.name}
    found.add("job", str(JOB_PATH.parent), {"downwardAPI": {"items": [annotation], "defaultMode": READ_ONLY_FILES}})
    found.add("tmp", "/tmp", {"emptyDir": {"sizeLimit": pool.ephemeral_storage}}, read_only=False)  # noqa: S108
    _add_secrets(found, job)
    for number, volume in enumerate(job.spec.effective_storage.effective_volumes):
        claim: JsonObject = {"claimName": volume.claim_name, "readOnly": volume.effective_read_only}
        found.add(
            f"claim-{number}",
            volume.mount_path,
            {"persistentVolumeClaim": claim},
            read_only=volume.effective_read_only,
        )
    for number, models in enumerate(image.models):
        found.add(f"models-{number}", models.mount_path, _model_source(models))
    return found


def _model_source(models: ModelVolume) -> JsonObject:
    if models.image:
        return {"image": {"reference": models.image, "pullPolicy": "IfNotPresent"}}
    return {"persistentVolumeClaim": {"claimName": models.claim_name, "readOnly": True}}


def _add_secrets(found: Mounts, job: Job) -> None:
    """Mounted, never in the environment: a rotated Secret reaches pods that run."""
    storage = job.spec.effective_storage
    if storage.secret_ref is not None:
        found.add("store", str(STORE_SECRET_PATH), _secret(storage.secret_ref.name))
    if storage.ca_secret_ref is not None:
        items = [{"key": CA_PATH.name, "path": CA_PATH.name}]
        found.add("ca", str(CA_PATH.parent), _secret(storage.ca_secret_ref.name, items))
    key = job.spec.effective_engine.api_key_secret_ref if isinstance(job, OcrJob) else None
    if key is not None:
        items = [{"key": key.effective_key, "path": API_KEY_PATH.name}]
        found.add("api-key", str(API_KEY_PATH.parent), _secret(key.name, items))


def _secret(name: str, items: list[dict[str, str]] | None = None) -> JsonObject:
    source: JsonObject = {"secretName": name, "defaultMode": READ_ONLY_FILES}
    return {"secret": {**source, "items": items} if items else source}
