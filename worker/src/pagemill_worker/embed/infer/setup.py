"""The first message to a child that runs a tensor model.

Layer: `worker.embed.infer`; imports no machine-learning package, so whoever starts children needs none.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.embed.infer.job import to_json
from pagemill_worker.embed.infer.settings import InferenceSettings
from pagemill_worker.environment import reveal

RUNNER = "pagemill_worker.embed.infer.runner:make_runner"


class InferSetup(BaseModel):
    """What a child is told; holds secrets, so it travels through a pipe only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: dict[str, Any]
    s3: dict[str, Any] = Field(repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_bytes: int


def setup_message(
    settings: InferenceSettings, s3: S3Settings, allowed_hosts: tuple[str, ...], max_bytes: int
) -> dict[str, Any]:
    """The set-up message that makes a child a runner of this model; `max_bytes` of a partition at most."""
    setup = InferSetup(model=to_json(settings), s3=reveal(s3), allowed_hosts=allowed_hosts, max_bytes=max_bytes)
    return {"runner": RUNNER, "settings": setup.model_dump(mode="json")}
