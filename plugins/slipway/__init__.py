"""Slipway: from a model revision to a TF Serving deployment on Kubernetes that has answered correctly."""

__version__ = "0.1.0"
