"""Asking outputs without ever making a pass wait: one task at a time for each job, in threads, behind breakers.

Layer: the operator. Passes read the last picture and submit at most one action; when it is done, the job is queued
again. A store that hangs holds a thread, never the queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from pagemill_core.clock import Clock
from pagemill_core.errors import PagemillError, StoreUnavailableError, ThrottledError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import Owner
from pagemill_core.work.pod import s3_settings
from pagemill_core.work.records import Holder
from pagemill_operator.breaker import Breaker
from pagemill_operator.metrics import Metrics
from pagemill_operator.objects import Custom, Key
from pagemill_operator.reconcile.accept import is_below
from pagemill_operator.reconcile.plan import StoreAction
from pagemill_operator.settings import Config
from pagemill_operator.store_desk import DeskParts, StoreDesk
from pagemill_operator.store_view import StoreProblem, StoreSight, StoreView

PATIENCE_S = 15.0  # of one conditional write; the next pass asks again
CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0


class TaskRunner(Protocol):
    """Where blocking calls run. `then` is called in the loop's thread, never within `start`."""

    def start(self, call: Callable[[], None], then: Callable[[], None]) -> None:
        """Run `call` in a thread and `then` afterwards. What `call` raises is a bug and ends the process."""


@dataclass(frozen=True)
class PollerParts:
    """What a poller is made of. `is_alive` says whether a job with this uid exists or still has Jobs.

    `cluster_id` tells this cluster's jobs from another's in a shared output's ledger.
    """

    config: Config
    clock: Clock
    runner: TaskRunner
    metrics: Metrics
    open_store: Callable[[str, S3Settings], ObjectStore]
    probe: Callable[[ObjectStore], object]
    is_alive: Callable[[str], bool]
    cluster_id: str
    namespaces: tuple[str, ...] = ()


@dataclass
class _Desk:
    """A job's desk, how it reaches the store, and what is known."""

    key: Key
    uri: str
    settings: S3Settings
    desk: StoreDesk
    breaker: Breaker
    sight: StoreSight = StoreSight()


class StorePoller:
    """All desks. Used from the loop's thread alone."""

    def __init__(self, parts: PollerParts, changed: Callable[[Key], None]) -> None:
        self._parts = parts
        self._changed = changed
        self._desks: dict[str, _Desk] = {}
        self._breakers: dict[str, Breaker] = {}
        self._probed: set[tuple[str, str]] = set()
        self._probing = threading.Lock()

    def sight(self, uid: str) -> StoreSight:
        """What is known of a job's output."""
        desk = self._desks.get(uid)
        return StoreSight() if desk is None else desk.sight

    def submit(self, custom: Custom, action: StoreAction, secret: dict[str, str] | None = None) -> None:
        """Do `action` soon; nothing happens while another one is under way.

        `secret` is the job's own store Secret where the operator may read it.
        """
        desk = self._desk_for(custom, secret)
        if desk is None or desk.sight.is_busy:
            return
        now_s = self._parts.clock.monotonic_s()
        if not desk.breaker.may_ask(now_s):
            problem = desk.sight.problem or StoreProblem.of(
                StoreUnavailableError(f"{desk.settings.endpoint or 'the store'} did not answer other jobs either")
            )
            desk.sight = replace(desk.sight, problem=problem, tried_s=now_s)
            self._changed(desk.key)  # so that a pass tells the owner, and asks again later
            return
        desk.sight = replace(desk.sight, is_busy=True, asked_s=now_s)
        outcome = _Outcome()
        self._parts.runner.start(lambda: outcome.run(desk.desk, action), lambda: self._done(desk, action, outcome))

    def forget(self, uid: str) -> None:
        """Drop what is known of a job that is gone."""
        self._desks.pop(uid, None)

    def oldest_look_s(self, now_s: float) -> float:
        """The age of the oldest picture of a run that is ours and not over, 0 when there is none."""
        views = (desk.sight.view for desk in self._desks.values())
        ages = [now_s - view.looked_s for view in views if view and view.is_mine and view.is_active]
        return max(ages, default=0.0)

    @property
    def open_breakers(self) -> int:
        """Endpoints that do not answer now."""
        return sum(breaker.is_open for breaker in self._breakers.values())

    def _done(self, desk: _Desk, action: StoreAction, outcome: _Outcome) -> None:
        now_s = self._parts.clock.monotonic_s()
        error = outcome.error
        if isinstance(error, (StoreUnavailableError, ThrottledError)):
            desk.breaker.failed(now_s)
        else:
            desk.breaker.answered()
        problem = None if error is None else StoreProblem.of(error)
        view = outcome.view or desk.sight.view
        desk.sight = StoreSight(view=view, problem=problem, is_busy=False, tried_s=now_s)
        self._parts.metrics.store_task(type(action).__name__, "ok" if error is None else error.reason)
        self._changed(desk.key)

    def _desk_for(self, custom: Custom, secret: dict[str, str] | None) -> _Desk | None:
        if custom.job is None:
            return None
        uri = custom.job.spec.output.uri
        settings = access(custom, self._parts.config, secret)
        known = self._desks.get(custom.uid)
        if known is not None and (known.sight.is_busy or (known.uri, known.settings) == (uri, settings)):
            return known
        endpoint = settings.endpoint or urlsplit(uri).netloc
        desk = _Desk(
            key=custom.key,
            uri=uri,
            settings=settings,
            desk=self._open(custom, uri, settings),
            breaker=self._breakers.setdefault(endpoint, Breaker()),
        )
        self._desks[custom.uid] = desk
        return desk

    def _open(self, custom: Custom, uri: str, settings: S3Settings) -> StoreDesk:
        parts = self._parts
        store = parts.open_store(uri, settings)
        bucket = (settings.endpoint, urlsplit(uri).netloc)

        def probe_once(_: ObjectStore) -> None:
            """A bucket keeps its promises or it does not; it need not show them to each of a thousand jobs."""
            with self._probing:  # they would all begin at once, and get in each other's way
                if bucket not in self._probed:
                    parts.probe(store)
                    self._probed.add(bucket)

        key = custom.key
        holder = Holder(host=parts.cluster_id, boot_id=key.namespace, started=custom.uid)
        return StoreDesk(
            DeskParts(
                writer=Writer(store, parts.clock, deadline_s=PATIENCE_S),
                owner=Owner(custom.uid, f"{key.kind} {key.namespace}/{key.name}", holder),
                is_gone=self._is_gone,
                probe=probe_once,
            )
        )

    def _is_gone(self, holder: Holder) -> bool:
        """Whether an entry is held by a job of this cluster that was deleted: then nobody needs to wait for it."""
        if holder.host != self._parts.cluster_id or not holder.started:
            return False
        serves = not self._parts.namespaces or holder.boot_id in self._parts.namespaces
        return serves and not self._parts.is_alive(holder.started)


class _Outcome:
    """What a task brought; written in its thread, read after it."""

    def __init__(self) -> None:
        self.view: StoreView | None = None
        self.error: PagemillError | None = None

    def run(self, desk: StoreDesk, action: StoreAction) -> None:
        try:
            self.view = desk.do(action)
        except PagemillError as error:
            self.error = error


def access(custom: Custom, config: Config, secret: dict[str, str] | None = None) -> S3Settings:
    """How the operator itself reaches a job's output: by its own identity, or by the job's Secret where it may."""
    if custom.job is None:
        raise LookupError(custom.key)
    storage = custom.job.spec.effective_storage
    uri = custom.job.spec.output.uri
    endpoint = storage.effective_endpoint
    matching = (one for one in config.stores if one.endpoint == endpoint and is_below(uri, one.prefix))
    way = next(matching, None)
    settings = s3_settings(
        storage,
        secret_path=way.secret_path if way and not secret else None,
        ca_path=way.ca_path if way else None,
        endpoint=config.default_endpoint,
        region=(way.region if way else "") or config.default_region,
    )
    patience = {
        "connect_timeout_s": CONNECT_TIMEOUT_S,
        "read_timeout_s": READ_TIMEOUT_S,
        "first_contact_s": PATIENCE_S,
        "retry_for_s": PATIENCE_S,
    }
    return S3Settings.model_validate({**settings.model_dump(), **patience, **_keys(secret)})


_SECRET_NAMES = {
    "access_key": ("accessKey", "AWS_ACCESS_KEY_ID"),
    "secret_key": ("secretKey", "AWS_SECRET_ACCESS_KEY"),
    "session_token": ("sessionToken", "AWS_SESSION_TOKEN"),
}


def _keys(secret: dict[str, str] | None) -> dict[str, str]:
    """Credentials from a Secret's content, in either of the spellings that a mounted one may have."""
    given = secret or {}
    found = {
        field: next((given[name] for name in names if name in given), "") for field, names in _SECRET_NAMES.items()
    }
    return {field: value for field, value in found.items() if value}
