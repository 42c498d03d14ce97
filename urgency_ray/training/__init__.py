"""From embeddings to a trained classifier: the loop, its data and loss, and the Ray Train workers around it."""
