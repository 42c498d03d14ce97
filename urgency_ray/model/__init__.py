"""The classifiers over embeddings: `load_model`, each class's `from_pretrained`, and the `Batch` that they take."""

from urgency_ray.model.batch import Batch
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.ensemble import UrgencyEnsemble
from urgency_ray.model.load import load_model

__all__ = ["Batch", "UrgencyClassifier", "UrgencyEnsemble", "load_model"]
