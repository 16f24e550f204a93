"""What tests of the chart stand on: the marker that names programs, and fixtures that render the chart.

Layer: project tooling; tests/conftest.py loads it. Programs are made after collection and before the first test, since
from cold some take minutes, which no test's timeout allows for.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from charttools import programs

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pagemill"
Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the programs that the chosen tests name."""
    if session.config.option.collectonly:
        return
    markers = [marker for item in session.items for marker in item.iter_markers("chart")]
    programs.ensure(name for marker in markers for name in marker.args)


def helm(*arguments: str | Path, program: str = "helm", **more: Any) -> subprocess.CompletedProcess[str]:
    """Run helm, whose texts come back; a failure is the caller's to look at."""
    command = [str(programs.path_of(program)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def render(*arguments: str | Path, namespace: str = "team-a", program: str = "helm") -> list[Manifest]:
    """The chart's manifests under these arguments of `helm template`. Raises: AssertionError with helm's words."""
    made = helm("template", "pagemill", CHART, "--namespace", namespace, *arguments, program=program)
    assert made.returncode == 0, made.stderr
    return [document for document in yaml.safe_load_all(made.stdout) if document]
