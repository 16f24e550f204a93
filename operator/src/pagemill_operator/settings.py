"""The operator's settings: variables of its process, and one mounted file that says what jobs may use.

Layer: the operator's bottom. Variables say how the process runs; the file says what the cluster's owner offers and
allows: pools and prices, images, stores, outputs. Nothing below `main` reads the environment or a file.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, SettingsConfigDict

from pagemill_core.api.quantities import parse_money, parse_quantity, quantity_bytes
from pagemill_core.errors import InvalidSpecError


class OperatorSettings(BaseSettings):
    """Settings of the operator's process, read from the environment with the prefix PAGEMILL_."""

    model_config = SettingsConfigDict(env_prefix="PAGEMILL_", frozen=True, extra="ignore")

    config_path: Path = Field(
        default=Path("/etc/pagemill/operator.yaml"), description="file with pools, images, stores and limits"
    )
    namespaces: str = Field(default="", description="comma-separated namespaces to serve; empty: the whole cluster")
    workers: int = Field(default=16, ge=1, le=64, description="jobs reconciled at once")
    store_threads: int = Field(default=32, ge=1, le=256, description="object stores asked at once")
    resync_every_s: float = Field(default=30.0, gt=0, description="seconds between complete lists of jobs and pods")
    port: int = Field(default=8080, ge=0, le=65535, description="port of /metrics, /healthz and /readyz; 0: any free")
    external_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="port of the external metrics that autoscalers ask for; 0: none"
    )
    tls_path: Path = Field(
        default=Path("/var/run/pagemill/tls"), description="folder with tls.crt and tls.key, for external metrics"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="least level logged")

    @property
    def served_namespaces(self) -> tuple[str, ...]:
        """The namespaces to serve, none for the whole cluster."""
        return tuple(name.strip() for name in self.namespaces.split(",") if name.strip())


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


def _check_quantity(text: str) -> str:
    parse_quantity(text)
    return text


def _check_price(text: str) -> str:
    parse_money(text)
    return text


# YAML's numbers are taken as they are written; the schema, which the chart shows to its users, says so.
_NUMERIC = WithJsonSchema({"type": ["string", "number"]})
Quantity = Annotated[str, BeforeValidator(lambda given: _check_quantity(str(given))), _NUMERIC]
Price = Annotated[str, BeforeValidator(lambda given: _check_price(str(given))), _NUMERIC]


class Accelerator(_Part):
    """What makes a pool's pods land on its special nodes."""

    resource: str = Field(default="nvidia.com/gpu", description="the extended resource that each pod asks for")
    count: int = Field(default=1, ge=1, le=64, description="how many of it")


class Pool(_Part):
    """A named set of nodes: where pods go, what each gets, and what one costs."""

    name: str = Field(min_length=1, max_length=63, description="as spec.workers.pool names it")
    node_selector: dict[str, str] = Field(default={}, description="labels of its nodes")
    tolerations: list[dict[str, Any]] = Field(default=[], description="taints of its nodes that pods accept")
    accelerator: Accelerator | None = Field(default=None, description="none for nodes without one")
    runtime_class: str = Field(default="", description="runtime class of the pods, where nodes want one")
    price_per_hour: Price = Field(default="0", description="of one pod, in the file's currency")
    spot: bool = Field(default=False, description="whether nodes may be taken away at short notice")
    cpu: Quantity = Field(default="1", description="cores of each pod, asked for and at most")
    memory: Quantity = Field(default="2Gi", description="memory of each pod, asked for and at most")
    max_memory: Quantity | None = Field(
        default=None, description="how far later waves may raise the memory of pods; none: eight times memory"
    )
    ephemeral_storage: Quantity = Field(default="2Gi", description="scratch space asked for")

    @property
    def cores(self) -> int:
        """Whole cores of a pod, at least one: how many items it works on at once."""
        return max(1, int(parse_quantity(self.cpu)))

    @property
    def max_memory_bytes(self) -> int:
        return 8 * quantity_bytes(self.memory) if self.max_memory is None else quantity_bytes(self.max_memory)


class ModelVolume(_Part):
    """Models for an image that does not hold them: a claim, or an OCI image mounted as a volume."""

    mount_path: str = Field(description="where the worker finds them")
    claim_name: str = Field(default="", description="a persistent volume claim of the job's namespace")
    image: str = Field(default="", description="an OCI image, mounted read-only (Kubernetes 1.33 and later)")


class WorkerImage(_Part):
    """The image of one engine or loader."""

    image: str = Field(min_length=1, description="by digest, best; a run keeps the one that it was planned with")
    models: list[ModelVolume] = Field(default=[], description="volumes with models")
    environment: dict[str, str] = Field(default={}, description="variables of the worker's own settings")


def _as_image(given: object) -> object:
    return {"image": given} if isinstance(given, str) else given


ImageSetting = Annotated[WorkerImage, BeforeValidator(_as_image)]


class Images(_Part):
    """Which image serves which engine (OcrJob) or loader (EmbeddingJob)."""

    engines: dict[str, ImageSetting] = Field(default={}, description="by engine name")
    loaders: dict[str, ImageSetting] = Field(default={}, description="by loader name")
    default: ImageSetting | None = Field(default=None, description="for engines and loaders not named above")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(default="IfNotPresent", description="of workers")
    pull_secrets: list[str] = Field(default=[], description="Secrets with registry credentials, in jobs' namespaces")


class StoreAccess(_Part):
    """How the operator itself reaches outputs: its records below .pagemill/, never a page."""

    prefix: str = Field(default="s3://", description="outputs that start so, whole path segments")
    endpoint: str = Field(default="", description="only jobs that name this endpoint; empty: those that name none")
    region: str = Field(default="", description="region when the job names none")
    secret_path: Path | None = Field(default=None, description="folder of a mounted Secret; none: own identity")
    ca_path: Path | None = Field(default=None, description="file of certificates to trust")


class ChildLimits(_Part):
    """Bounds of what the operator makes."""

    max_parallelism: int = Field(default=1000, ge=1, le=10_000, description="pods of one job at once")
    child_ttl_seconds: int = Field(default=86_400, ge=60, description="seconds that finished Jobs stay to be looked at")
    grace_seconds: int = Field(default=60, ge=1, le=3600, description="seconds that a pod has to finish its item")
    backoff_per_index: int = Field(default=10, ge=0, le=100, description="pods that one index may lose before its end")
    retry_failed_after_s: float = Field(
        default=300.0, gt=0, description="seconds until what may be cured from outside is tried again"
    )
    allowed_priority_classes: list[str] | None = Field(
        default=None, description="classes that jobs may name; none given: all but system-*"
    )


class Config(_Part):
    """The mounted file."""

    pools: list[Pool] = Field(default=[Pool(name="cpu")], min_length=1, description="where pods may run")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="of all prices")
    images: Images = Field(default=Images(), description="worker images")
    stores: list[StoreAccess] = Field(default=[StoreAccess()], description="how outputs are reached; the first match")
    outputs: dict[str, list[str]] = Field(
        default={},
        description='URI prefixes that a namespace\'s jobs may write to, by namespace; "*" for all namespaces, and '
        "{namespace} in a prefix stands for the job's own",
    )
    allowed_endpoints: list[str] = Field(
        default=[], description="addresses that storage.endpoint and engine.endpoint may name, whole hosts or paths"
    )
    allowed_hosts: list[str] = Field(
        default=[], description="private hosts and networks that worker pods may fetch pages from"
    )
    secret_name_pattern: str = Field(default="pagemill-*", description="names of Secrets that jobs may refer to")
    reserved_secrets: list[str] = Field(
        default=[], description="Secrets that no job may refer to although their names match: the operator's own"
    )
    claim_name_pattern: str = Field(default="*", description="names of volume claims that jobs may mount")
    label_key_patterns: list[str] = Field(
        default=["*"],
        description="keys of labels that jobs may give their pods; Services and network policies choose pods by labels",
    )
    read_secrets_in: list[str] = Field(
        default=[], description="namespaces whose jobs' store Secrets the operator reads, to reach the store as they do"
    )
    default_endpoint: str = Field(default="", description="endpoint of jobs that name none; empty: AWS")
    default_region: str = Field(default="", description="region of jobs that name none")
    worker_service_account: str = Field(default="", description="of worker pods, for cloud identities; empty: default")
    limits: ChildLimits = Field(default=ChildLimits(), description="bounds of what the operator makes")

    def pool(self, name: str) -> Pool | None:
        """The pool of this name."""
        return next((pool for pool in self.pools if pool.name == name), None)

    def price_of(self, name: str) -> Decimal:
        """What a pod of this pool costs an hour, 0 for an unknown pool."""
        pool = self.pool(name)
        return Decimal(0) if pool is None else parse_money(pool.price_per_hour)


def read_config(path: Path) -> Config:
    """The mounted file. Raises: InvalidSpecError naming the field."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSpecError(f"{path}: {error.strerror}", advice="mount the settings file there") from error
    except yaml.YAMLError as error:
        raise InvalidSpecError(f"{path} is no YAML: {error}") from error
    return parse_config(given or {}, origin=str(path))


def parse_config(given: object, *, origin: str = "settings") -> Config:
    """Settings from parsed YAML. Raises: InvalidSpecError naming the field."""
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSpecError(f"{origin}: {where}: {first['msg']}", advice="mend the operator's settings") from error
