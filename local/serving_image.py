"""The image that models are built on: TensorFlow Serving's own where it can be pulled, else a stand-in built here."""

from dataclasses import dataclass

from local.settings import Settings
from local.shared import Parts

SERVING_IMAGE = "tensorflow/serving:2.20.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingImage:
    """The base image's reference, and why it is a stand-in where it is one."""

    reference: str
    stand_in: str | None = None


UNKNOWN = ServingImage(reference="")


def provide(settings: Settings, parts: Parts) -> ServingImage:
    """The image, pulled or built."""
    return ServingImage(reference=SERVING_IMAGE)
