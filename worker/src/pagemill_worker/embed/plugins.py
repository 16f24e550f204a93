"""Encoders from other packages: entry points of the group `pagemill.encoders`.

Layer: `worker.embed`. An installed package is code that whoever built the environment chose, so a plug-in needs no
`trust`; its distribution and version are part of the fingerprint. An entry point is a callable
`(settings: EncoderSettings, folder: Path) -> VisualEncoder | TextEncoder`, by the job's `model.loader`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from pagemill_core.errors import EngineUnavailableError, InvalidSpecError
from pagemill_worker.embed.encoder import EncoderSettings, TextEncoder, VisualEncoder

GROUP = "pagemill.encoders"


def plugin_names() -> tuple[str, ...]:
    """The names of the installed plug-ins, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def plugin_version(name: str) -> str:
    """`distribution version` of a plug-in, for fingerprints."""
    distribution = _point(name).dist
    return f"{distribution.name} {distribution.version}" if distribution else ""


def load_plugin(settings: EncoderSettings, name: str, folder: Path) -> VisualEncoder | TextEncoder:
    """Make the encoder. Raises: EngineUnavailableError, InvalidSpecError."""
    try:
        factory = _point(name).load()
    except (ImportError, AttributeError) as error:
        raise EngineUnavailableError(
            f"the plug-in {name} cannot be loaded: {error}", advice="reinstall the package that brings it"
        ) from error
    encoder = factory(settings, folder)
    if not callable(getattr(encoder, "encode", None)) or not hasattr(encoder, "facts"):
        raise InvalidSpecError(
            f"the plug-in {name} returned a {type(encoder).__name__}, which is no encoder",
            advice="an encoder has `facts`, `encode` and `close`; see docs/guide/models.md",
        )
    return cast("VisualEncoder | TextEncoder", encoder)


def _point(name: str) -> EntryPoint:
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        raise InvalidSpecError(
            f"no plug-in is called {name}", advice=f"installed are: {', '.join(plugin_names()) or '—'}"
        )
    return found[0]
