"""The base image of models on TensorFlow: TensorFlow Serving's own if it can be pulled, otherwise a stand-in, which is built here."""

import json
from dataclasses import dataclass

from local.errors import StandError
from local.parts import engine
from local.parts.server_image import ASK_S, ServerImage, has_image, image_id, provide_image
from local.parts.shared import Parts
from local.progress import say, step
from local.settings import Settings

NAME = "tensorflow/serving"
TAG = "2.20.0"  # the newest release: include/model exports with a TensorFlow whose models it loads
SERVING_IMAGE = f"{NAME}:{TAG}"
PULL_S = 1800
STAND_IN = ServerImage(
    name="serving-stand-in",
    lock="local/serving/requirements.txt",
    not_run=("tensorflow/include",),  # 236 MB of C++ headers, which the server does not need
    packages=("local/serving/model_server", "include/onnx_server/serving_protocol"),
    programs={  # at the paths of the real image
        "/usr/bin/tensorflow_model_server": "local/serving/tensorflow_model_server.py",
        "/usr/bin/tf_serving_entrypoint.sh": "local/serving/tf_serving_entrypoint.sh",
    },
    entrypoint="/usr/bin/tf_serving_entrypoint.sh",
    labels={"slipway.stand-in": "a stand-in for tensorflow/serving, built from local/serving"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingImage:
    """The reference of the base image; for a stand-in, also the reason for it."""

    reference: str
    stand_in: str | None = None


UNKNOWN = ServingImage(reference="")


def provide(settings: Settings, parts: Parts) -> ServingImage:
    """The user's image, the real one pulled, or the stand-in, which is then announced."""
    if settings.serving_image:
        return ServingImage(reference=settings.serving_image)
    with step("serving image") as note:
        refusal = pull(parts.docker_host)
        if refusal is None:
            note(SERVING_IMAGE)
            return ServingImage(reference=SERVING_IMAGE)
        note(f"{SERVING_IMAGE} cannot be pulled")
    with step("stand-in image") as note:
        reference = f"{parts.registry}/slipway/{STAND_IN.name}:{TAG}-{image_id(settings, STAND_IN)[:8]}"
        provide_image(settings, parts.docker_host, STAND_IN, reference, note)
    text = f"{SERVING_IMAGE} cannot be pulled ({refusal}): {reference}, built from local/serving, takes its place"
    say(f"  STAND-IN: {text}")
    return ServingImage(reference=reference, stand_in=text)


def pull(host: str) -> str | None:
    """Pull TensorFlow Serving's own image if the engine lacks it. Returns None, or the reason why it cannot be pulled."""
    if has_image(host, SERVING_IMAGE):
        return None
    try:
        engine.call(host, "GET", f"/distribution/{SERVING_IMAGE}/json", timeout_s=ASK_S)
        answer = engine.call(host, "POST", "/images/create", query={"fromImage": NAME, "tag": TAG}, timeout_s=PULL_S)
    except StandError as refused:
        return reason(str(refused))
    return engine.stream_error(answer)


def reason(text: str) -> str:
    """The engine's message out of an error text, on one line."""
    _, brace, rest = text.partition("{")
    try:
        said = str(json.loads(brace + rest)["message"])
    except (ValueError, KeyError):
        said = text
    return " ".join(said.split())[:200]
