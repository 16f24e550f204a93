"""The operator at scale, on a real control plane: `make bench-operator`, or `python -m benchmarks operator`."""
