"""A real Kubernetes on one machine, without Docker and without a container registry, for tests.

Why it exists: what an API server, a job controller or a kubelet really does cannot be faked well enough. Layer: project
tooling; no program of the project imports it. Two levels behind one interface, `Cluster`:

- `control-plane`: etcd, API server, controller manager, scheduler, and kwok for pretended nodes. Needs no root.
- `node`: the same with a kubelet, containerd, kube-proxy and CoreDNS in namespaces of their own. Needs root on Linux.

Programs come from the Go modules in go/go.mod, built once. Use: `python -m testcluster --help`, or `make cluster-up`.
"""
