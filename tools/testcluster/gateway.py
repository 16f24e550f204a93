"""Carries TCP connections across the edge of a cluster's network namespace.

Why it exists: nothing outside the namespace can reach a cluster of the node level, and nothing inside can reach this
machine. Two crossings are wanted: kubectl and tests to the API server, and pods to a server that a test runs on
loopback. A socket belongs to the namespace it was made in, whoever uses it: one process listens on one side and dials
on the other. Layer: project tooling; run as `python -m testcluster.gateway`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

from testcluster import linux

_CHUNK_BYTES = 256 * 1024


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, then hand the end on: the other direction may go on."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def serve(listening: socket.socket, host: str, port: int) -> None:
    """Carry every connection to host:port until cancelled. A refused dial closes the caller's connection."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            writer.close()
            far_writer.close()

    server = await asyncio.start_server(carry, sock=listening, limit=_CHUNK_BYTES)
    async with server:
        await server.serve_forever()


def listen_inside(namespace: Path, address: tuple[str, int]) -> socket.socket:
    """Listen in another network namespace, and stay in this one for everything else. Needs root."""
    with Path("/proc/self/ns/net").open("rb") as here, namespace.open("rb") as there:
        linux.enter_network(there.fileno())
        try:
            return socket.create_server(address, backlog=128)
        finally:
            linux.enter_network(here.fileno())


async def _until_gone(pid: int) -> None:
    """Return when a process has ended; it need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)  # readable once its process has ended
    await ended.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


async def _serve_while(pid: int, listening: socket.socket, host: str, port: int) -> None:
    serving = asyncio.ensure_future(serve(listening, host, port))
    await _until_gone(pid)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m testcluster.gateway")
    parser.add_argument("--fd", type=int, help="an inherited socket that listens already")
    parser.add_argument("--inside", type=int, metavar="PID", help="listen in this process's network namespace")
    parser.add_argument("--listen", default="", metavar="HOST:PORT", help="with --inside: where; port 0 is any")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where connections go")
    given = parser.parse_args()
    linux.die_with_parent()
    host, _, port = given.to.rpartition(":")
    if given.fd is not None:
        asyncio.run(serve(socket.socket(fileno=given.fd), host, int(port)))
        return 0
    inside_host, _, inside_port = given.listen.rpartition(":")
    listening = listen_inside(Path(f"/proc/{given.inside}/ns/net"), (inside_host, int(inside_port)))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    asyncio.run(_serve_while(given.inside, listening, host, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
