"""The server of ONNX Runtime on the stand: its own Dockerfile, built on the stand's Debian with Python.

Only if `up --onnx` asked for it: with its exporter's environment it is several gigabytes.
"""

from pathlib import Path

from local.builds.environments import content_id
from local.parts import engine
from local.parts.server_image import base_id, debian_base, push_image, registry_digest
from local.parts.shared import Parts
from local.programs.docker_client import build_image
from local.programs.locks import locked
from local.progress import step
from local.settings import Settings

NAME = "onnx-server"
CONTEXT = Path("include/onnx_server")
FILES = (  # of the context, that are in the image or say how it is made
    "Dockerfile", "requirements.txt", "onnx_model_server.py", "onnx_serving_entrypoint.sh", "onnx_server", "serving_protocol",
)  # fmt: skip


def requested(settings: Settings) -> bool:
    """Whether `up --onnx` asked for it since the last `down`."""
    return (settings.home / "onnx").exists()


def request(settings: Settings) -> None:
    """Ask for it."""
    (settings.home / "onnx").touch()


def reference(settings: Settings, parts: Parts) -> str:
    """The reference of the image, built or not. Its tag is a hash of all that it is made of."""
    return f"{parts.registry}/slipway/{NAME}:{image_id(settings)}"


def image_id(settings: Settings) -> str:
    """The hash of the base and of the context's files."""
    context = settings.checkout / CONTEXT
    below = sorted(path for name in FILES for path in (context / name, *(context / name).rglob("*")))
    files = [path for path in below if path.is_file() and path.suffix != ".pyc"]
    return content_id(
        base_id().encode() + b"".join(str(path.relative_to(context)).encode() + path.read_bytes() for path in files)
    )


def provide(settings: Settings, parts: Parts) -> str:
    """Build and push the image if the registry does not have it; its reference."""
    host, image = parts.docker_host, reference(settings, parts)
    with step("ONNX server's image") as note, locked(settings.cache / f"{NAME}.lock"):
        if registry_digest(host, image):
            note("in the registry already")
            return image
        build_image(host, settings.checkout / CONTEXT, _base(settings, parts), image)
        push_image(host, image)
        note("built and pushed")
    return image


def _base(settings: Settings, parts: Parts) -> str:
    """The stand's Debian by its digest, which the Dockerfile asks for. It is pushed, because only a registry gives a digest."""
    host, repository, tag = parts.docker_host, f"{parts.registry}/slipway/debian", base_id()
    engine.call(host, "POST", f"/images/{debian_base(settings, host)}/tag", query={"repo": repository, "tag": tag})
    push_image(host, f"{repository}:{tag}")
    return f"{repository}@{registry_digest(host, f'{repository}:{tag}')}"
