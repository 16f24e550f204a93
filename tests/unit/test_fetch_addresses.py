"""Which addresses a user's URL may reach."""

from __future__ import annotations

import pytest

from pagemill_core.errors import ForbiddenAddress, InvalidSpecError
from pagemill_worker.fetch.addresses import AddressPolicy

FORBIDDEN = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_check_private_or_reserved_address_is_forbidden(address: str) -> None:
    with pytest.raises(ForbiddenAddress, match=r"img\.test leads to") as caught:
        AddressPolicy().check("img.test", address)
    assert address not in caught.value.message


@pytest.mark.parametrize("address", PUBLIC)
def test_check_public_address_passes(address: str) -> None:
    AddressPolicy().check("img.test", address)


@pytest.mark.parametrize(
    ("entry", "host", "address"),
    [
        ("10.1.0.0/16", "img.test", "10.1.2.3"),
        ("10.1.2.3", "img.test", "10.1.2.3"),
        ("10.1.0.0/16", "img.test", "::ffff:10.1.2.3"),
        ("10.1.0.0/16", "img.test", "64:ff9b::a01:203"),
        ("fd00:1::/32", "img.test", "fd00:1::7"),
        (" Images.Internal ", "images.internal", "192.168.7.7"),
        ("images.internal", "IMAGES.internal.", "192.168.7.7"),
    ],
)
def test_check_allowed_network_or_host_passes(entry: str, host: str, address: str) -> None:
    AddressPolicy.allowing([entry]).check(host, address)


@pytest.mark.parametrize(
    ("entry", "host", "address"),
    [
        ("10.1.0.0/16", "img.test", "10.2.0.1"),
        ("images.internal", "x.images.internal", "10.0.0.1"),
        ("images.internal", "images.internal.evil.test", "10.0.0.1"),
        ("0.0.0.0/0", "img.test", "fd00::1"),
    ],
)
def test_check_beside_what_is_allowed_is_forbidden(entry: str, host: str, address: str) -> None:
    with pytest.raises(ForbiddenAddress):
        AddressPolicy.allowing([entry]).check(host, address)


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "10.0.0.1/8", "300.1.1.1", "*.internal", "a b", "http://x"])
def test_allowing_something_else_is_refused(entry: str) -> None:
    with pytest.raises(InvalidSpecError):
        AddressPolicy.allowing([entry])
