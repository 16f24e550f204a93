"""An HTTP fetcher as tests want it: loopback is allowed, time is faked, and names are what the test says they are.

Layer: `worker.testing`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pagemill_core.clock import Clock
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.fetch.addresses import AddressPolicy
from pagemill_worker.fetch.http import HttpFetcher, HttpPolicy

LOOPBACK = AddressPolicy.allowing(["127.0.0.1"])


@contextmanager
def fetching(
    policy: HttpPolicy | None = None, clock: Clock | None = None, names: dict[str, list[str]] | None = None
) -> Iterator[HttpFetcher]:
    """A fetcher that is closed afterwards; `names` are the hosts that resolve, besides addresses themselves."""

    def resolve(host: str, port: int) -> list[str]:
        if names and host in names:
            return names[host]
        if not host[-1].isdigit():
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [host]

    fetcher = HttpFetcher(
        policy or HttpPolicy(addresses=LOOPBACK), clock or FakeClock(), resolve=resolve, jitter=lambda: 0.5
    )
    try:
        yield fetcher
    finally:
        fetcher.close()
