"""`python -m charttools`: writes the chart's README.md from its values, by helm-docs.

Layer: project tooling. A test compares; `make verify` does not, since helm-docs takes a minute to build from cold.
"""

from __future__ import annotations

import subprocess
import sys

from bootstrap import ROOT
from testcluster.errors import ClusterError

from charttools import programs

UNAVAILABLE = 69


def main() -> int:
    """Write README.md. Returns: the exit status."""
    try:
        programs.ensure(["helm-docs"])
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return UNAVAILABLE
    chart = ROOT / "charts" / "pagemill"
    command = [str(programs.path_of("helm-docs")), "--log-level=warning", f"--chart-search-root={chart}"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
