"""Which packages a job's own stages may come from, as one typed class.

Layer: `worker.stages`. Whoever runs the workers decides, never a job's file: naming a class runs its code.
"""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

OWN_PACKAGE = "pagemill_worker.stages.builtin"


class StagesSettings(BaseSettings):
    """Packages of stages, read from the environment with the prefix PAGEMILL_STAGES_."""

    model_config = SettingsConfigDict(env_prefix="PAGEMILL_STAGES_", frozen=True, extra="ignore")

    packages: str = Field(
        default="",
        description="Comma-separated Python packages whose classes spec.stages may use, with all below them.",
    )

    @property
    def allowed_packages(self) -> tuple[str, ...]:
        """The packages by themselves, our own first."""
        return OWN_PACKAGE, *(name for name in (part.strip() for part in self.packages.split(",")) if name)
