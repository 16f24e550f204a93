"""The chart's generated files: its copies of the CRDs, the schema of its values, the dashboards.

Layer: project tooling; named in tools/generate.py. README.md is helm-docs' to write, see `charttools.readme`.
"""

from __future__ import annotations

from charttools import dashboard, values_schema, worker_dashboard
from pagemill_core.api.crd import generate as crds


def render_all() -> dict[str, str]:
    """Every generated file below charts/pagemill, by path."""
    copies = {f"charts/pagemill/{path}": text for path, text in crds.render_all().items() if path.startswith("crds/")}
    boards = {**dashboard.render_all(), **worker_dashboard.render_all()}
    return {**copies, **values_schema.render_all(), **boards}
