"""Where models lie on this machine, and which classes they may name, as one typed class.

Layer: `worker.embed`. Nothing here decides what a row is: the digests of the files found there do.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _home_cache() -> Path:
    home = os.path.expanduser("~")  # unlike Path.home(), no error for a user without one, as containers have
    return Path(home, ".cache/pagemill/models") if home != "~" else Path(tempfile.gettempdir(), "pagemill-models")


class ModelsSettings(BaseSettings):
    """Folder of the encoders' models, read from the environment with the prefix PAGEMILL_MODELS_."""

    model_config = SettingsConfigDict(env_prefix="PAGEMILL_MODELS_", frozen=True, extra="ignore")

    dir: Path = Field(
        default_factory=_home_cache,
        description="Folder of fetched and built models, one folder each; may be read-only once they are there.",
    )
    packages: str = Field(
        default="",
        description="Comma-separated Python packages whose classes inference.modelClass may name, with all below them.",
    )

    @property
    def allowed_packages(self) -> tuple[str, ...]:
        """The packages by themselves."""
        return tuple(name for name in (part.strip() for part in self.packages.split(",")) if name)
