"""A stand-in for `tensorflow_model_server`, for machines where the `tensorflow/serving` image cannot be pulled.

It serves a TensorFlow SavedModel over the same REST and gRPC addresses, with the same flags, answers and error codes.
README.md beside this folder says what it imitates and what it does not. It runs inside its own image, on the
environment of requirements.txt; nothing else imports it.
"""

from . import lean_tensorflow as lean_tensorflow  # before anything else imports TensorFlow
