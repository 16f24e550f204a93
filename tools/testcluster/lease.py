"""Lends a cluster to several processes: the first starts it, the last stops it, and a crash of all stops it too.

Layer: project tooling. Who uses the cluster holds a shared lock on a file; the cluster's keeper ends when nobody does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from testcluster import locks
from testcluster.cluster import Cluster
from testcluster.settings import Settings


@contextmanager
def leased(settings: Settings) -> Iterator[Cluster]:
    """A standing cluster of these settings, by its name. Raises: ClusterError."""
    cluster = Cluster(settings.name)
    try:
        # Held before the start, so that the keeper never finds its cluster unused.
        with locks.held(cluster.layout.lease, is_shared=True):
            cluster.up(replace(settings, is_leased=True))
            yield cluster
    finally:
        cluster.close()
        cluster.down_if_unused()
