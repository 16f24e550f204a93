"""A real Kueue with the objects that a test of queues needs, in place of the stand-in, where a person has one.

Layer: `operator.testing`. Its objects are named after the namespace and deleted at the end. The flavour's node label is
one that no node has, so that pods stay pending and can be played.
"""

from __future__ import annotations

from pagemill_operator.testing.played_pods import Json, PlainApi
from pagemill_operator.testing.queue_standin import QueueSettings

_GROUP = "/apis/kueue.x-k8s.io"


def served_version(api: PlainApi) -> str:
    """The version in which the cluster serves Kueue's kinds, "" when it has no Kueue."""
    found = api.read_or_none(_GROUP)
    return "" if found is None else str(found["preferredVersion"]["version"])


class RealQueue:
    """Stands in front of a quota like `QueueStandIn` does, but Kueue does the work. Start it, and stop it."""

    def __init__(self, api: PlainApi, namespace: str, settings: QueueSettings) -> None:
        self._api = api
        self._namespace = namespace
        self.settings = settings
        self.errors: list[str] = []
        self._made: list[str] = []

    def start(self) -> None:
        """Create flavour, quota, queues and priorities."""
        version, name = served_version(self._api), self._namespace
        root = f"{_GROUP}/{version}"

        def make(plural: str, kind: str, name: str, body: Json, namespace: str = "") -> None:
            place = f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"
            whole = {"apiVersion": f"kueue.x-k8s.io/{version}", "kind": kind, "metadata": {"name": name}, **body}
            self._api.call("POST", place, whole)
            self._made.append(f"{place}/{name}")

        flavor = {"name": name, "resources": [{"name": "cpu", "nominalQuota": self.settings.quota_cpu}]}
        others = [{"name": one, "nominalQuota": "1Ti"} for one in ("memory", "ephemeral-storage")]
        flavor["resources"] = [*flavor["resources"], *others]
        queue = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [{"coveredResources": ["cpu", "memory", "ephemeral-storage"], "flavors": [flavor]}],
        }
        labels = {"spec": {"nodeLabels": dict(self.settings.node_selector)}}
        make("resourceflavors", "ResourceFlavor", name, labels)
        make("clusterqueues", "ClusterQueue", name, {"spec": queue})
        for local in self.settings.local_queues:
            make("localqueues", "LocalQueue", local, {"spec": {"clusterQueue": name}}, namespace=name)
        for priority, value in self.settings.priorities.items():
            make("workloadpriorityclasses", "WorkloadPriorityClass", priority, {"value": value})

    def stop(self) -> None:
        """Delete what was made."""
        for path in reversed(self._made):
            self._api.ask("DELETE", path)
