"""A user's own tensor model over partitions: safe reading, loading, the loop, reports of ranks, metrics and plot.

Layer: `worker.embed`. Imports torch inside the modules that need it, so that a finalizing pod
writes reports without it.
"""
