"""Archives and folders -> one call's waveform and words."""
