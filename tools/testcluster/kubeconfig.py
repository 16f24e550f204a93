"""Writes kubeconfigs: JSON, which is YAML, with the certificate inside, so that a copy of the file works elsewhere.

Layer: project tooling. Every user of a test cluster has a token; the file of tokens is the API server's.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

_CONTEXT = "pagemill-test"


@dataclass(frozen=True, slots=True)
class User:
    """A user whom the API server knows by token. `key` names the kubeconfig."""

    key: str
    name: str
    group: str = ""


ADMIN = User("admin", "admin", "system:masters")
USERS = (
    ADMIN,
    User("kube-controller-manager", "system:kube-controller-manager"),
    User("kube-scheduler", "system:kube-scheduler"),
    User("kube-proxy", "system:kube-proxy"),
    User("kwok", "kwok", "system:masters"),
    User("coredns", "coredns", "system:masters"),
    User("kubelet", "system:node:node-0", "system:nodes"),
)


def token_of(user: User, secret: str) -> str:
    """The token of a user; each has its own, all come from one secret."""
    return f"{secret}-{user.key}"


def token_file(secret: str) -> str:
    """The API server's file of tokens: token,user,uid,"groups"."""
    return "".join(f'{token_of(user, secret)},{user.name},{user.key},"{user.group}"\n' for user in USERS)


def write(path: Path, *, server: str, authority: Path, token: str, namespace: str = "default") -> None:
    """Write a kubeconfig that only its owner can read."""
    data = base64.b64encode(authority.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _CONTEXT, "cluster": {"server": server, "certificate-authority-data": data}}],
        "users": [{"name": _CONTEXT, "user": {"token": token}}],
        "contexts": [{"name": _CONTEXT, "context": {"cluster": _CONTEXT, "user": _CONTEXT, "namespace": namespace}}],
        "current-context": _CONTEXT,
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
