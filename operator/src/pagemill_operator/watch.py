"""kopf as the watch layer, and nothing more: three handlers that tell the controller what happened.

Layer: the operator. Handlers do no I/O, never raise and return nothing: kopf would write what they return into the
status, and forget what they raise. No finalizers, no annotations, no tasks per object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from pagemill_core.work.pod import MANAGED_BY, MANAGED_BY_LABEL
from pagemill_operator.cluster import PLURALS, JsonObject
from pagemill_operator.kube import Login

# About two minutes in all: shorter dies in an outage of one, endless would hang for ever on a right that was taken.
ERROR_BACKOFFS = (1, 1, 2, 3, 5, 8, *(10,) * 10)
INACTIVITY_S = 10  # what a connection that hangs costs in staleness
SERVER_TIMEOUT_S = 600  # an int: the server refuses 600.0
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"

Hear = Callable[[str | None, JsonObject], None]


class _NoDifferences(kopf.DiffBaseStorage):
    """Nothing is compared with what was seen before: otherwise each event's object is copied whole for it."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def watch_settings() -> kopf.OperatorSettings:
    """kopf's settings: no scanning, no events of its own, timeouts that hold the staleness goal."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDifferences()
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = ERROR_BACKOFFS
    settings.watching.server_timeout = SERVER_TIMEOUT_S
    settings.watching.inactivity_timeout = INACTIVITY_S
    return settings


def make_registry(hear_custom: Hear, hear_child: Hear, login: Callable[[], Awaitable[Login]]) -> kopf.OperatorRegistry:
    """The handlers: one for each kind of ours, one for child Jobs, one for credentials."""
    registry = kopf.OperatorRegistry()

    async def on_custom(event: Any, **_: Any) -> None:
        hear_custom(event["type"], dict(event["object"]))

    async def on_child(event: Any, **_: Any) -> None:
        hear_child(event["type"], dict(event["object"]))

    async def on_login(**_: Any) -> kopf.ConnectionInfo:
        return connection(await login())

    for kind, resource in PLURALS.items():
        group, version, plural = resource.split("/")
        kopf.on.event(group, version, plural, registry=registry, id=kind)(on_custom)
    kopf.on.event("batch", "v1", "jobs", labels={MANAGED_BY_LABEL: MANAGED_BY}, registry=registry, id="Job")(on_child)
    kopf.on.login(registry=registry)(on_login)
    return registry


def connection(found: Login) -> kopf.ConnectionInfo:
    """Credentials in kopf's words."""
    return kopf.ConnectionInfo(
        server=found.server,
        ca_path=found.ca_path,
        insecure=not found.verifies,
        scheme="Bearer" if found.token else None,
        token=found.token,
        certificate_path=found.certificate_path,
        private_key_path=found.key_path,
    )
