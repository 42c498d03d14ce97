"""What a trained classifier is worth: figures with intervals, calibration, decisions."""
