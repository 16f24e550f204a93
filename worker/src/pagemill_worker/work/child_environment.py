"""What of a process's environment its engine processes get, and by which way.

Layer: `worker.work`; pure. Anybody on the machine who may look at a process sees the environment it was started with,
and whatever an engine starts inherits it. So nothing that is named like a secret goes that way: what an engine process
needs of it (the AWS tools' own credentials) travels through the pipe, the rest not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_SECRET_WORDS = frozenset(
    ("SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "KEY", "APIKEY", "AUTHORIZATION")
)
_NEEDED_PREFIX = "AWS_"


@dataclass(frozen=True, slots=True)
class ChildEnvironment:
    """`plain` is what a child is started with, `by_pipe` what it sets for itself once it runs."""

    plain: Mapping[str, str]
    by_pipe: Mapping[str, str]


def split(environment: Mapping[str, str]) -> ChildEnvironment:
    """Part what may be seen from what may not."""
    secret = {name for name in environment if _SECRET_WORDS & set(name.upper().split("_"))}
    return ChildEnvironment(
        plain={name: value for name, value in environment.items() if name not in secret},
        by_pipe={name: environment[name] for name in sorted(secret) if name.startswith(_NEEDED_PREFIX)},
    )
