"""The planner: reads a job's source once, checks it, cuts it into shards and writes the plan's tables.

Layer: `worker.plan`, above `worker.items` and `core`; knows no engine and decodes no picture. It writes below its own
attempt's prefix only; whoever calls it creates the one pointer that makes the tables count.
"""
