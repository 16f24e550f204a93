"""Finding rows by their neighbours: the index, exact search through Parquet, near-duplicates, contact sheets."""
