"""Curves, trials and results for those who look on: TensorBoard, MLflow, Weights & Biases."""

from urgency_ray.tracking.run import Tracking, check_trackers, track
from urgency_ray.tracking.tracker import Ended, Epochs, TrialNote, figures_of

__all__ = ["Ended", "Epochs", "Tracking", "TrialNote", "check_trackers", "figures_of", "track"]
