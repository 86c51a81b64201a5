"""A stand-in for `tensorflow_model_server`, for machines that cannot pull `tensorflow/serving` (../README.md)."""
