"""Fakes of what the operator meets: an API server, the Job controller, pods, a whole world. No production code."""
