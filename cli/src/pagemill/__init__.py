"""Pagemill in Python: read what a run left, look into data sets, write tables, run a job. For notebooks and scripts.

Layer: above the command; thin over the code that runs everywhere else. Nothing here is needed by a job.

    import pagemill

    vectors = pagemill.read("s3://library/out/embeddings").vectors()
"""

from __future__ import annotations

from pagemill.loader import Sample, iterate_samples, list_shards, load_shard
from pagemill.orchestrator import process_dataset
from pagemill.output import Output, read
from pagemill.writer import write_json, write_parquet

__all__ = [
    "Output",
    "Sample",
    "iterate_samples",
    "list_shards",
    "load_shard",
    "process_dataset",
    "read",
    "write_json",
    "write_parquet",
]
