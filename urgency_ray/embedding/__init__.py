"""Calls to rows of embeddings: the Ray Data pipeline, its stages, what made an embedding, the accounts."""
