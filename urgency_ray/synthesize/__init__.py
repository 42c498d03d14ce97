"""A synthetic corpus in the real layout, with cues to the urgency at known rates."""
