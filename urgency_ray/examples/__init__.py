"""Embeddings parquet to examples: arrays, splits, leaks, tokens."""
