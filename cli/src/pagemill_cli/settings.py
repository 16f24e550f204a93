"""The command's own settings, from the environment.

Layer: `cli`, read once in `main`. Credentials of S3 come from here or from the usual AWS places,
never from a job's file.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pagemill_core.errors import InvalidSpecError


class CliSettings(BaseSettings):
    """Settings of the `pagemill` command, read from the environment with the prefix PAGEMILL_."""

    model_config = SettingsConfigDict(env_prefix="PAGEMILL_", frozen=True, extra="ignore", populate_by_name=True)

    s3_endpoint: str = Field(default="", description="URL of an S3-compatible server; overrides spec.storage.endpoint")
    s3_access_key: str = Field(default="", description="access key id; empty: the usual places of the AWS tools")
    s3_secret_key: SecretStr = Field(default=SecretStr(""), description="secret access key of PAGEMILL_S3_ACCESS_KEY")
    s3_region: str = Field(default="", description="region of the store; overrides spec.storage.region")
    s3_ca_file: str = Field(default="", description="file of certificates to trust for the store")
    api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("PAGEMILL_API_KEY", "OPENROUTER_API_KEY"),
        description="API key of remote engines (vlm, qwen, gemma, deepseek)",
    )
    kubeconfig: str = Field(
        default="",
        validation_alias=AliasChoices("PAGEMILL_KUBECONFIG", "KUBECONFIG"),
        description="the file that says how clusters are reached; several with ':' between them are merged",
    )
    allowed_hosts: str = Field(
        default="",
        description="comma-separated host names and networks that may be fetched from although they are private",
    )
    price_per_hour: Decimal = Field(
        default=Decimal(0), ge=0, description="what this machine costs, for estimates and budgets"
    )


def read_settings() -> CliSettings:
    """The settings of this process. Raises: InvalidSpecError naming the variable; its value may be a secret."""
    try:
        return CliSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = f"PAGEMILL_{'_'.join(map(str, first['loc'])).upper()}".replace("PAGEMILL_PAGEMILL_", "PAGEMILL_")
        raise InvalidSpecError(f"{name}: {first['msg']}", advice="mend or unset the environment variable") from None
