"""The work protocol: who works on an output, what is done, what is seen. See docs/reference/layout.md.

Layer: `core.work`, above `storage` and `api`. Synchronous, without threads, with clock, randomness and store handed
in, so that the very code that runs in production also runs under the deterministic simulation.
"""
