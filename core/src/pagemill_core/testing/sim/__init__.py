"""A deterministic simulation of the work protocol: the real `core.work`, a faulty store, and time that only counts.

Layer: `core.testing`; never imported by production code. `schedule.simulate(seed)` runs one world to its end, and
`python -m pagemill_core.testing.sim --seed N --trace` shows what happened in it. See docs/adr/0004-simulation.md.
"""
