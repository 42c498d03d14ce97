"""Urgency classification of Korean 119 emergency calls at scale: Ray Data, Ray Train, Ray Tune."""

__version__ = "0.2.0"
