"""How to reach an S3 store: endpoint, region, identity, certificates, patience.

Layer: `core.storage`; a border model without I/O, so that the operator and the command build it without
loading botocore.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class S3Settings(BaseModel):
    """Settings of one S3 store. Everything may stay empty: then it is AWS with botocore's default credential chain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str = Field(default="", description="URL of an S3-compatible server; empty means AWS")
    region: str = Field(default="", description="region to sign for; empty: botocore's configuration, then us-east-1")
    access_key: str = Field(
        default="", description="access key id; empty: secret_path, then botocore's default chain of credentials"
    )
    secret_key: SecretStr = Field(default=SecretStr(""), description="secret access key of access_key")
    session_token: SecretStr = Field(default=SecretStr(""), description="session token of a temporary access_key")
    secret_path: Path | None = Field(
        default=None,
        description="folder of a mounted Secret with accessKey, secretKey and sessionToken, or the same in the names "
        "of AWS' environment variables; read again when it changes",
    )
    ca_path: Path | None = Field(default=None, description="file of certificates to trust besides the usual ones")
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="bucket in the path or in the host name; auto: path for an endpoint, host name for AWS",
    )
    sse: str = Field(default="", description="server-side encryption: empty, AES256, aws:kms or aws:kms:<key id>")
    connect_timeout_s: float = Field(default=5.0, gt=0, description="seconds to wait for a connection")
    read_timeout_s: float = Field(default=30.0, gt=0, description="seconds to wait for each piece of a reply")
    first_contact_s: float = Field(
        default=10.0, ge=0, description="seconds to go on retrying plain calls before the store has ever answered"
    )
    retry_for_s: float = Field(
        default=90.0, ge=0, description="seconds to go on retrying plain calls of a store that has answered"
    )
