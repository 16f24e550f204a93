"""The catalogue of named models: config/models/*.yaml, one pinned model a file, read into types once.

Layer: `worker.embed`; imports no machine-learning package. A copy of the catalogue lies inside this package
(`registered/`, generated), because an installed worker has no repository around it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.encoder import Pooling, Side

REGISTERED = Path(__file__).parent / "registered"


class _Entry(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Preprocessing(_Entry):
    """The pictures a model wants, as its publisher documents them; checked against the model's own files.

    `interpolation` None: as the files say.
    """

    side_px: int = Field(ge=1)
    resize: Literal["shortest", "squash", "longest"]
    shortest_px: int | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Package(_Entry):
    """A Python package that carries the model's files."""

    distribution: str
    version: str
    module: str
    folder: str


class Prompts(_Entry):
    """What the publisher wants in front of a text that is stored, and of one that is searched for."""

    document: str = ""
    query: str = ""


class KnownModel(_Entry):
    """One named model. `revision` None: none is pinned here, so fetching asks for it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    summary: str
    sides: tuple[Side, ...] = Field(min_length=1)
    loader: str
    dim: int = Field(ge=1)
    licence: str
    hub: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    files: tuple[str, ...] = ()
    package: Package | None = None
    built_by: str | None = None
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    pooling: Mapping[Side, Pooling] = Field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    max_tokens: int | None = None
    prompts: Prompts = Prompts()
    matryoshka: bool = False

    @property
    def how_to_get(self) -> str:
        """What a user does to have its files here."""
        if self.built_by:
            return f"`{self.built_by}` builds it from packages"
        return f"`pagemill models fetch {self.name}`" + ("" if self.revision else " --revision COMMIT") + " fetches it"


@functools.cache
def known_models(folder: Path = REGISTERED) -> Mapping[str, KnownModel]:
    """All named models by name, sorted. Raises: InvalidSpecError naming the file that is wrong."""
    models = [_read(path) for path in folder.glob("*.yaml")]
    return MappingProxyType({model.name: model for model in sorted(models, key=lambda model: model.name)})


def _read(path: Path) -> KnownModel:
    try:
        model = KnownModel.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, ValueError, yaml.YAMLError, ValidationError) as error:
        raise InvalidSpecError(f"{path} is no entry of the catalogue of models: {error}") from error
    if model.name != path.stem:
        raise InvalidSpecError(f"{path} names the model {model.name}; file and model must have one name")
    return model


def named_model(name: str) -> KnownModel:
    """The catalogue's entry. Raises: InvalidSpecError naming those there are."""
    models = known_models()
    if name not in models:
        raise InvalidSpecError(
            f"no model is called {name}", advice=f"name one of {', '.join(models)}, or give the model's `uri`"
        )
    return models[name]
