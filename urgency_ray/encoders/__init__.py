"""Audio and text encoders: load once, encode a batch, pool. They know no Ray."""
