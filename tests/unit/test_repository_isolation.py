"""The guards of tests/conftest.py themselves."""

from __future__ import annotations

import os
import socket

import pytest


def test_tests_connecting_off_the_machine_are_refused() -> None:
    with socket.socket() as client, pytest.raises(AssertionError, match="only loopback"):
        client.connect(("192.0.2.1", 9))


def test_tests_connecting_to_loopback_are_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())

        assert client.getpeername() == server.getsockname()


def test_tests_see_no_credentials_of_the_machine() -> None:
    assert [name for name in os.environ if name.startswith(("AWS_ACCESS", "AWS_SECRET", "OPENROUTER_"))] == []
