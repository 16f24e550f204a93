"""Makes the keys and certificates of one cluster.

Layer: project tooling. Elliptic keys, since RSA keys would cost a second of every start; valid for a month, since no
test cluster lives longer.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID_DAYS = 30
_CLOCK_SKEW = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom a certificate is for; `names` are DNS names or addresses, none for a client."""

    common_name: str
    organization: str = ""
    names: Sequence[str] = ()

    def as_name(self) -> x509.Name:
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)]
        if self.organization:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.organization))
        return x509.Name(parts)


class Authority:
    """A certificate authority that lives as long as this object; its key is never written."""

    def __init__(self, common_name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = Subject(common_name=common_name).as_name()
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())

    def write(self, path: Path) -> None:
        """Write the authority's own certificate."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, subject: Subject, stem: Path) -> None:
        """Write `stem`.crt and `stem`.key: a server's when the subject has names, else a client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject.as_name(), self._name, key.public_key())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if subject.names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if subject.names:
            names = x509.SubjectAlternativeName([_general_name(name) for name in subject.names])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(key, stem.with_suffix(".key"))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _CLOCK_SKEW)
    return builder.not_valid_after(now + dt.timedelta(days=_VALID_DAYS))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(key: ec.EllipticCurvePrivateKey, path: Path) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    path.touch(mode=0o600)
    path.write_bytes(text)


def write_all(folder: Path, server_names: Sequence[str]) -> None:
    """Write what an API server and a kubelet need into `folder`; see docs/guide/test-cluster.md for what is what."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority("pagemill-test")
    authority.write(folder / "ca.crt")
    authority.issue(Subject(common_name="kube-apiserver", names=server_names), folder / "apiserver")
    kubelet_client = Subject(common_name="kube-apiserver-kubelet-client", organization="system:masters")
    authority.issue(kubelet_client, folder / "kubelet-client")
    # Aggregated APIs, such as external metrics, trust the API server by this one.
    front_proxy = Authority("pagemill-test-front-proxy")
    front_proxy.write(folder / "front-proxy-ca.crt")
    front_proxy.issue(Subject(common_name="front-proxy-client"), folder / "front-proxy-client")
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(key, folder / "service-accounts.key")
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "service-accounts.pub").write_bytes(public)
