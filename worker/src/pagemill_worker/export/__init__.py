"""Rows that leave for elsewhere: PostgreSQL with pgvector, Lance, single files of Parquet and NumPy."""
