"""Sweeps: one job run again and again with other sizes, and what can be learned from the times.

Layer: `cli`, beside `local` and `cluster`, below the commands.
"""
