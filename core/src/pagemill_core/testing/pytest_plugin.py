"""Fixtures that need a real S3 server: one server per test process, a fresh prefix per test.

Layer: `core.testing`. tests/conftest.py loads it. Under pytest-xdist each worker process has a server of its own, so
tests never meet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pagemill_core.storage.s3 import S3Store
from pagemill_core.testing.seaweed import SeaweedServer


@pytest.fixture(scope="session")
def s3_server() -> Iterator[SeaweedServer]:
    """A running server, shared by the session: do not stop it, start another for that."""
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def s3_store(s3_server: SeaweedServer) -> Iterator[S3Store]:
    """A store below a prefix of its own, as the identity `worker`."""
    store = s3_server.fresh_store()
    yield store
    store.close()
