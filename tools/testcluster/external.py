"""Reaches a cluster that somebody else made, through `kubectl proxy`.

Why it exists: kubectl knows every way of logging in that a kubeconfig can name, certificates and cloud plugins among
them; tests then speak plain HTTP to loopback. Layer: project tooling.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from testcluster import binaries
from testcluster.errors import ClusterError

_BUILT_IN = "kubectl"


@contextmanager
def kubectl_proxy(kubeconfig: str) -> Iterator[str]:
    """The URL of a proxy to the kubeconfig's current context. Raises: ClusterError when it cannot be reached."""
    kubectl = shutil.which(_BUILT_IN) or str(binaries.ensure([_BUILT_IN]) / _BUILT_IN)
    command = [kubectl, f"--kubeconfig={kubeconfig}", "proxy", "--port=0", "--address=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if found is None:
                raise ClusterError(f"the cluster of {kubeconfig} cannot be reached: {line.strip()}")
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.kill()
