"""What every test starts from: no settings or credentials of the machine, no way off it, no GPU asked for in vain."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pagemill_core.testing.pytest_plugin", "testcluster.pytest_plugin", "charttools.pytest_plugin"]

# Shared machines stall: a slow example is no failure, and neither is a run without the local example database.
settings.register_profile("pagemill", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("pagemill")

# ONNX Runtime reports its use over the network unless told not to before it loads; no guard in Python would see that.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_FOREIGN_SETTINGS = ("PAGEMILL_", "AWS_", "OPENROUTER_", "OPENAI_", "KUBE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_GPU_DEVICE = Path("/dev/nvidiactl")


class LeftMachineError(AssertionError):
    """A test tried to reach an address other than loopback."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", choices=("short", "long"), default="short", help="how long the fault tests run")


def pytest_sessionstart(session: pytest.Session) -> None:
    is_controller = not hasattr(session.config, "workerinput")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if is_controller and reporter is not None and not _GPU_DEVICE.exists():
        reporter.write_line("No NVIDIA GPU here: tests marked gpu are deselected.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _GPU_DEVICE.exists():
        return
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        config.hook.pytest_deselected(items=on_gpu)
        items[:] = [item for item in items if item not in on_gpu]


@pytest.fixture(scope="session")
def chaos_length(request: pytest.FixtureRequest) -> Literal["short", "long"]:
    """`long` under `make chaos`, else `short`."""
    return "long" if request.config.getoption("--chaos") == "long" else "short"


@pytest.fixture(scope="session", autouse=True)
def _machine_settings_absent() -> Iterator[None]:
    """Session-wide, so that servers which fixtures of any scope start inherit the clean environment too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_FOREIGN_SETTINGS) or name.lower() in _PROXIES:
                patch.delenv(name)
        # A machine's role or shared credentials file must never stand in for what a test gives.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        yield


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Refuse connections off the machine. Child processes are not covered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
        yield


def _guarded(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise LeftMachineError(f"a test connects to {address[0]}; only loopback is allowed")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
