"""The classifiers over embeddings: `UrgencyClassifier.from_pretrained`, and the `Batch` that it takes."""

from urgency_ray.model.batch import Batch
from urgency_ray.model.classifier import UrgencyClassifier, load_model

__all__ = ["Batch", "UrgencyClassifier", "load_model"]
