"""How the object store is reached: endpoint, credentials by reference, mounted claims.

Layer: `core.api`. Holds no secret, only names of Secrets; which names may be used is the operator's setting.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import Endpoint, Listed, MountPath, Name, ObjectName, Text

Addressing = Literal["auto", "path", "virtual"]
Encryption = Literal["none", "AES256", "kms"]


class SecretRef(ApiModel):
    """A Secret of the job's namespace, mounted as files."""

    name: Name = Field(description="The Secret's name; it must match the operator's secretNamePattern (pagemill-*).")


class Volume(ApiModel):
    """A persistent volume claim, mounted into the workers; file paths on a cluster are paths on it."""

    claim_name: ObjectName = Field(description="The claim's name, in the job's namespace.")
    mount_path: MountPath = Field(description="Where it is mounted; paths below it may be used as sources.")
    read_only: bool | None = Field(default=None, description="Whether the mount is read-only. Default true.")

    @property
    def effective_read_only(self) -> bool:
        """Whether the mount is read-only."""
        return True if self.read_only is None else self.read_only


class Storage(ApiModel):
    """The object store of this job. Without it: AWS, with the pod's own identity."""

    endpoint: Endpoint | None = Field(
        default=None, description="Address of an S3-compatible server; it must be allowed by the operator. Empty: AWS."
    )
    region: str | None = Field(
        default=None, pattern=r"^[a-z0-9-]+$", max_length=64, description="The store's region. Default us-east-1."
    )
    secret_ref: SecretRef | None = Field(
        default=None, description="Credentials of the store. Default: the pod's own identity."
    )
    ca_secret_ref: SecretRef | None = Field(
        default=None, description="A Secret with ca.crt, for servers with a certificate of one's own authority."
    )
    addressing: Addressing | None = Field(
        default=None, description="Whether the bucket stands in the path or in the host name. Default auto."
    )
    sse: Encryption | None = Field(
        default=None, description="Server-side encryption asked for with each write. Default none: the bucket's own."
    )
    kms_key_id: Text | None = Field(default=None, description="The key for sse: kms. Default: the account's own key.")
    volumes: Annotated[tuple[Volume, ...], Listed(kind="map", map_key="mountPath", max_length=16)] | None = Field(
        default=None, description="Claims to mount, for sources that are files on a cluster. Default: none."
    )

    @property
    def effective_endpoint(self) -> str:
        """Address of the S3-compatible server; empty for AWS."""
        return "" if self.endpoint is None else self.endpoint

    @property
    def effective_region(self) -> str:
        """The store's region."""
        return "us-east-1" if self.region is None else self.region

    @property
    def effective_addressing(self) -> Addressing:
        """Whether the bucket stands in the path or in the host name."""
        return "auto" if self.addressing is None else self.addressing

    @property
    def effective_sse(self) -> Encryption:
        """Server-side encryption asked for with each write."""
        return "none" if self.sse is None else self.sse

    @property
    def effective_volumes(self) -> tuple[Volume, ...]:
        """Claims to mount."""
        return () if self.volumes is None else self.volumes
