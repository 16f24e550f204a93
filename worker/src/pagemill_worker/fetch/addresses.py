"""Which network addresses a user's URL may reach, enforced where the connection is made.

Layer: `worker.fetch`. A check before the request could be fooled by a name that resolves otherwise a moment later, so
`CheckedNetwork` resolves, judges and connects in one step, for every connection and every redirect; names, TLS server
names and certificates stay as they are. It also bounds each wait by the request's own deadline, which the timeouts of
single reads do not: a server may send one byte a minute for ever.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpcore

from pagemill_core.clock import Clock
from pagemill_core.errors import FetchFailed, ForbiddenAddress, InvalidSpecError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], list[str]]

# What `is_global` says differs between Python releases; these are refused whatever it says.
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; also where Alibaba Cloud keeps its metadata service
        "168.63.129.16/32",  # Azure's platform service, on a public address
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible, long withdrawn
        "64:ff9b:1::/48",  # NAT64 for private use
        "100::/64",
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries any IPv4 address
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Public addresses, and those that the operator's settings allow by network or by host name."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def allowing(cls, entries: Iterable[str]) -> AddressPolicy:
        """Read entries such as "10.1.0.0/16", "192.168.1.5" and "images.internal".

        Raises: InvalidSpecError for an entry that is neither a network nor a host name.
        """
        networks, hosts = [], set()
        for entry in entries:
            text = entry.strip().lower()
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError as error:
                if not text or not text.replace("-", "").replace(".", "").isalnum() or text[-1].isdigit():
                    raise InvalidSpecError(f"allowed address {entry!r} is neither a network nor a host name") from error
                hosts.add(text)
        return cls(tuple(networks), frozenset(hosts))

    def check(self, host: str, address: str) -> None:
        """Refuse `address`, to which `host` resolved. The message tells the host alone: what a name means inside a
        private network is nobody's business. Raises: ForbiddenAddress."""
        if host.lower().rstrip(".") in self.hosts:
            return
        found = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
        if any(found.version == network.version and found in network for network in self.networks):
            return
        if not _is_public(found):
            raise ForbiddenAddress(
                f"{host} leads to a private or reserved address",
                advice="ask whoever runs Pagemill to allow the host or its network",
            )


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped or NAT64 address: what counts is where a packet ends."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if any(address.version == network.version and address in network for network in _NEVER_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def resolve_by_system(host: str, port: int) -> list[str]:
    """Addresses of `host` in the system's order. Raises: socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects to what the policy allows, within the deadline of the thread's current request."""

    def __init__(self, policy: AddressPolicy, clock: Clock, resolve: Resolve) -> None:
        self._policy = policy
        self._clock = clock
        self._resolve = resolve
        self._sockets = httpcore.SyncBackend()
        self._request = threading.local()

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Bound everything that this thread waits for inside the block by `seconds` altogether, name look-up aside."""
        self._request.ends_at_s = self._clock.monotonic_s() + seconds
        try:
            yield
        finally:
            del self._request.ends_at_s

    def remaining(self, timeout: float | None) -> float | None:
        """`timeout`, or what is left until the deadline when that is less. Raises: httpcore.ReadTimeout past it."""
        ends_at_s: float | None = getattr(self._request, "ends_at_s", None)
        if ends_at_s is None:
            return timeout
        left = ends_at_s - self._clock.monotonic_s()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the whole request is over")
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._addresses(host, port)
        for address in addresses:  # one bad address among good ones is how rebinding looks: refuse the host
            self._policy.check(host, address)
        for place, address in enumerate(addresses):
            try:
                stream = self._sockets.connect_tcp(
                    address, port, self.remaining(timeout), local_address, socket_options
                )
                return _DeadlineStream(stream, self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if place == len(addresses) - 1:
                    raise
        raise httpcore.ConnectError("the host has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return self._resolve(host, port)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise httpcore.ConnectError("the host's name could not be looked up") from error
            raise FetchFailed("the host's name is not known") from error
        except UnicodeError as error:
            raise FetchFailed("the host's name is not valid") from error


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, network: CheckedNetwork) -> None:
        self._stream = stream
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.remaining(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, self._network.remaining(timeout))
        return _DeadlineStream(inner, self._network)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
