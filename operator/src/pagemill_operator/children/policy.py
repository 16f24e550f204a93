"""What Kubernetes does when a pod fails, generated from the error tree's exit codes.

Layer: `operator.children`; pure.
"""

from __future__ import annotations

from pagemill_core.work.pod import FAIL_JOB_EXIT_CODES, IGNORED_EXIT_CODES
from pagemill_operator.cluster import JsonObject


def pod_failure_policy() -> JsonObject:
    """Disruptions and drained pods cost nothing; what no retry can cure ends the Job; everything else is counted.

    The order matters: the first rule that matches decides. There is no FailIndex: one bad shard does not end the
    range of shards that an index has.
    """
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": list(IGNORED_EXIT_CODES)}},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(FAIL_JOB_EXIT_CODES)}},
        ]
    }
