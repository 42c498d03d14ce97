"""Urgency classification of Korean 119 emergency calls at scale: Ray Data, Ray Train, Ray Tune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urgency_ray.prediction.urgency_pipeline import Prediction, UrgencyPipeline

__version__ = "0.3.0"
__all__ = ["Prediction", "UrgencyPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    # Ray's workers import the package first, and pay for what it imports: the pipeline comes when it is asked for.
    if name in ("Prediction", "UrgencyPipeline"):
        from urgency_ray.prediction import urgency_pipeline

        return getattr(urgency_pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
