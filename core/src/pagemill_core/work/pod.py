"""What the operator hands to a worker pod and what the pod hands back: the one definition for both sides.

Layer: `core.work`; pydantic and the standard library, no I/O. The operator writes `PodTask.to_env()` into the Job's
template, the worker's `main` reads it back with `PodTask.from_env(os.environ)`. A pod tells the operator how it ended
in two ways: its exit code (core.errors) and, for people, `LastWords` in its termination log. The image's entry point
is `pagemill-worker <step>`.

Files in a pod:

    /etc/pagemill/job.json          the job as JSON without status (the annotation JOB_ANNOTATION, downward API)
    /var/run/pagemill/store/        a mounted Secret with the store's credentials, as S3Settings.secret_path wants it
    /var/run/pagemill/api-key/key   a remote engine's key
    /var/run/pagemill/ca/ca.crt     certificates to trust for the store
    /tmp                            an emptyDir, the only place that is writable
    /dev/termination-log            LastWords
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pagemill_core.api.v1alpha1 import Storage
from pagemill_core.errors import EXIT_DRAINED, InvalidSpecError, ItemError, NonRetriableError, PagemillError
from pagemill_core.storage.s3_settings import S3Settings

GROUP: Final = "pagemill.dev"
WORKER_COMMAND: Final = "pagemill-worker"

# -- labels and annotations -------------------------------------------------------------------------------------------

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "pagemill"
JOB_LABEL: Final = f"{GROUP}/job"  # the job's name
KIND_LABEL: Final = f"{GROUP}/kind"  # OcrJob or EmbeddingJob
UID_LABEL: Final = f"{GROUP}/uid"  # the job's uid: names are used again, uids never are
STEP_LABEL: Final = f"{GROUP}/step"  # plan, work or finalize
RUN_LABEL: Final = f"{GROUP}/run"
WAVE_LABEL: Final = f"{GROUP}/wave"
HASH_ANNOTATION: Final = f"{GROUP}/hash"  # of the manifest that was applied, so that an equal one is not applied again
JOB_ANNOTATION: Final = f"{GROUP}/job-json"  # the whole job without status; a pod sees it as JOB_PATH

# -- files ------------------------------------------------------------------------------------------------------------

JOB_PATH: Final = Path("/etc/pagemill/job.json")
STORE_SECRET_PATH: Final = Path("/var/run/pagemill/store")
API_KEY_PATH: Final = Path("/var/run/pagemill/api-key/key")
CA_PATH: Final = Path("/var/run/pagemill/ca/ca.crt")
TERMINATION_PATH: Final = Path("/dev/termination-log")
MAX_LAST_WORDS_BYTES: Final = 4096  # the kubelet cuts what is longer
MAX_JOB_BYTES: Final = 200 * 1024  # of 256 KiB that all annotations of an object may have

COMPLETION_INDEX_ENV: Final = "JOB_COMPLETION_INDEX"  # set by Kubernetes in Indexed Jobs
_PREFIX: Final = "PAGEMILL_"


class PodStep(StrEnum):
    """What a pod is for; the first argument of the worker's command."""

    PLAN = "plan"
    WORK = "work"
    FINALIZE = "finalize"


Ending = Literal["Complete", "Stopped"]


class PodTask(BaseModel):
    """What one pod is told besides the job itself. Each field travels as the variable PAGEMILL_<FIELD>.

    `completion_index` alone comes from Kubernetes. Empty strings and None mean "not given".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: PodStep = Field(description="plan, work or finalize")
    run: str = Field(description="the run on the output, such as 00000007-9c66e1f0")
    output_uri: str = Field(description="the root of the output's store, as spec.output.uri")
    source_uri: str = Field(default="", description="output of the job that spec.source names, if it names one")
    owner: str = Field(description="uid of the job: the owner that the ledger entry names while this work is wanted")
    epoch: int = Field(ge=1, description="the ledger entry's epoch; with another owner or epoch in it the pod stops")
    job_path: Path = Field(default=JOB_PATH, description="the job as JSON, without status")
    pool: str = Field(default="", description="the pool's name, for usage records")
    price_per_hour: str = Field(default="0", description="of one pod in this pool, a decimal string")
    has_accelerator: bool = Field(default=False, description="whether the pool of the work has one")
    slots: int = Field(default=1, ge=1, description="items worked on at once by the whole job, for cutting shards")
    pod_name: str = Field(default="", description="the pod's name (downward API)")
    pod_uid: str = Field(default="", description="the pod's uid (downward API): names usage records and attempts")
    memory_limit_bytes: int = Field(default=0, ge=0, description="the container's limit, 0 for none")
    store_secret_path: Path | None = Field(default=None, description="folder with the store's credentials")
    api_key_path: Path | None = Field(default=None, description="file with a remote engine's key")
    ca_path: Path | None = Field(default=None, description="file of certificates to trust for the store")
    s3_endpoint: str = Field(default="", description="endpoint when the job names none; empty: AWS")
    s3_region: str = Field(default="", description="region when the job names none")
    allowed_hosts: str = Field(
        default="", description="comma-separated hosts and networks that may be fetched from although private"
    )
    wave: int = Field(default=0, ge=0, description="work: which waves/<n>.json.zst to take shards from, from 1")
    completions: int = Field(default=1, ge=1, description="work: over how many indexes the wave is spread")
    memory_rung: int = Field(default=0, ge=0, description="work: how often the pool's memory was doubled for this wave")
    can_have_more_memory: bool = Field(
        default=False, description="work: a later wave can; pages that run out of memory now are left to it"
    )
    ending: Ending = Field(
        default="Complete",
        description="finalize: Complete seals what is missing when the entry is Sealing, then writes everything and "
        "_SUCCESS.json; Stopped publishes what is committed and writes a report",
    )
    outcome: str = Field(default="", description="finalize, Stopped: the reason constant for the report")
    outcome_message: str = Field(default="", description="finalize, Stopped: its sentence for people")
    completion_index: int = Field(default=0, ge=0, description="work: this pod's index, from Kubernetes")

    def to_env(self) -> dict[str, str]:
        """The variables that say this task; what equals its default is left out, and so is the completion index."""
        given = self.model_dump(mode="json", exclude_defaults=True, exclude={"completion_index"})
        return {f"{_PREFIX}{name.upper()}": str(value) for name, value in given.items()}

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Self:
        """Read the task that `to_env` wrote; other variables are passed over.

        Raises: InvalidSpecError naming the variable: the pod was not started by an operator of this release.
        """
        names = {name: f"{_PREFIX}{name.upper()}" for name in cls.model_fields} | {
            "completion_index": COMPLETION_INDEX_ENV
        }
        given = {name: environment[variable] for name, variable in names.items() if environment.get(variable)}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = str(first["loc"][0])
            raise InvalidSpecError(
                f"{names.get(name, name)}: {first['msg']}",
                advice="worker pods are started by the operator; use the worker image of the operator's release",
            ) from error

    def s3_settings(self, storage: Storage) -> S3Settings:
        """How this pod reaches every s3:// URI of a job with this `spec.storage`."""
        return s3_settings(
            storage,
            secret_path=self.store_secret_path,
            ca_path=self.ca_path,
            endpoint=self.s3_endpoint,
            region=self.s3_region,
        )


def s3_settings(
    storage: Storage,
    *,
    secret_path: Path | None = None,
    ca_path: Path | None = None,
    endpoint: str = "",
    region: str = "",
) -> S3Settings:
    """Settings for `storage`; `endpoint` and `region` hold where the job names none."""
    sse = storage.effective_sse
    if sse == "kms":
        key = storage.kms_key_id
        sse_text = f"aws:kms:{key}" if key else "aws:kms"
    else:
        sse_text = "" if sse == "none" else sse
    return S3Settings(
        endpoint=storage.effective_endpoint or endpoint,
        region=storage.region or region,
        secret_path=secret_path,
        ca_path=ca_path,
        addressing=storage.effective_addressing,
        sse=sse_text,
    )


class LastWords(BaseModel):
    """Why a pod ended badly, for people: a Pagemill error's reason, message and advice. Holds no secret."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: str
    message: str = ""
    advice: str = ""

    @classmethod
    def of(cls, error: PagemillError) -> Self:
        """The last words for an error."""
        return cls(reason=error.reason, message=error.message, advice=error.advice)

    def to_bytes(self) -> bytes:
        """JSON of at most MAX_LAST_WORDS_BYTES: what is too long loses the end of its message."""
        words = self.model_copy(update={"reason": self.reason[:64], "advice": self.advice[:160]})
        while len(body := words.model_dump_json().encode()) > MAX_LAST_WORDS_BYTES:
            # A character takes up to 6 bytes (a control character as \\u0000), so this never cuts too much.
            kept = len(words.message) - max(1, (len(body) - MAX_LAST_WORDS_BYTES) // 6)
            words = words.model_copy(update={"message": words.message[:kept]})
        return body

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """What a pod left in its termination log, None when that is nothing of ours."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


# -- exit codes -------------------------------------------------------------------------------------------------------


def _incurable() -> tuple[int, ...]:
    """Exit codes of the errors that ending and starting a pod again cannot cure."""
    found: set[int] = set()
    classes: list[type[NonRetriableError]] = [NonRetriableError]
    while classes:
        error = classes.pop()
        if error is ItemError:  # never leaves its shard; a pod that ends so has a bug, which another node may not have
            continue
        classes += error.__subclasses__()
        if error is not NonRetriableError:
            found.add(error.exit_code)
    return tuple(sorted(found))


FAIL_JOB_EXIT_CODES: Final = _incurable()
"""The whole Job fails at once: the next pod would end the same way."""

IGNORED_EXIT_CODES: Final = (EXIT_DRAINED,)
"""The pod was asked to stop; its index goes on with a new pod, and no retry is used up."""
