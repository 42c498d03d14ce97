"""Audio and text encoders, and transcribers: load once, take a batch. They know no Ray."""
