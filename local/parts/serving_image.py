"""The base image of models: TensorFlow Serving's own if it can be pulled, otherwise a stand-in that is built here.

The stand-in has three layers: Debian with Python, the Python packages, the program. A change of the program rebuilds
only the last, small one. The tag of each layer is a hash of its inputs, by which the engine finds it again.
"""

import base64
import io
import json
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local.builds.environments import build_uv, content_id
from local.errors import StandError
from local.parts import engine
from local.parts.shared import Parts
from local.programs.locks import locked
from local.programs.shell import run
from local.progress import Note, say, step
from local.settings import Settings

NAME = "tensorflow/serving"
TAG = "2.20.0"  # the newest release: include/model exports with a TensorFlow whose models it loads
SERVING_IMAGE = f"{NAME}:{TAG}"
ASK_S = 20  # for a question about an image, without its content
PULL_S = 1800

DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates"
PYTHON = "3.11"  # the version in this Debian
SITE_PACKAGES = f"/usr/local/lib/python{PYTHON}/dist-packages"
NOT_RUN = ("tensorflow/include",)  # 236 MB of C++ headers, which the server does not need
WORK_NAME = "slipway-stand"  # prefix of the layers' image names in the engine
LABEL_TEXT = "a stand-in for tensorflow/serving, built from local/serving"
CHUNK_BYTES = 1 << 20


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
        reference = f"{parts.registry}/slipway/serving-stand-in:{TAG}-{program_id(settings)[:8]}"
        with locked(settings.cache / "stand-in.lock"):
            build_stand_in(settings, parts.docker_host, reference, note)
            push(parts.docker_host, reference, note)
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


def has_image(host: str, reference: str) -> bool:
    """True if the engine has this image."""
    try:
        engine.call(host, "GET", f"/images/{reference}/json", timeout_s=ASK_S)
    except StandError:
        return False
    return True


def program_id(settings: Settings) -> str:
    """The hash of all inputs of the stand-in."""
    parts = [where.encode() + path.read_bytes() for where, path in program_files(settings.checkout).items()]
    return content_id(packages_id(settings).encode() + b"".join(parts) + LABEL_TEXT.encode())


def packages_id(settings: Settings) -> str:
    """The hash of the locked Python packages and of the Debian base."""
    lock = (settings.checkout / "local" / "serving" / "requirements.txt").read_bytes()
    return content_id(lock + base_id().encode() + " ".join(NOT_RUN).encode())


def base_id() -> str:
    """The hash of the Debian release and its packages."""
    return content_id(f"{DEBIAN} {DEBIAN_PACKAGES}".encode())


def program_files(checkout: Path) -> dict[str, Path]:
    """The server's files by their path in the image. Program and entrypoint have the paths of the real image."""
    folder = checkout / "local" / "serving"
    packages = (folder / "model_server", checkout / "include" / "onnx_server" / "serving_protocol")
    return {
        "usr/bin/tensorflow_model_server": folder / "tensorflow_model_server.py",
        "usr/bin/tf_serving_entrypoint.sh": folder / "tf_serving_entrypoint.sh",
        **{f"{SITE_PACKAGES[1:]}/{place}": path for package in packages for place, path in package_files(package)},
    }


def package_files(package: Path) -> list[tuple[str, Path]]:
    """The files of a Python package, each with its place among the packages."""
    kinds = (".py", ".bin")  # no caches of bytecode, which differ between machines
    return [(f"{package.name}/{path.name}", path) for path in sorted(package.iterdir()) if path.suffix in kinds]


def build_stand_in(settings: Settings, host: str, reference: str, note: Note) -> None:
    """Build the layers of the stand-in that the engine does not have yet."""
    if has_image(host, reference):
        note("in the engine already")
        return
    packages = _build_packages(settings, host)
    container = _create(host, packages, _compile(f"{SITE_PACKAGES}/model_server", f"{SITE_PACKAGES}/serving_protocol"))
    try:
        _put(host, container, "/", _program_layer(settings.checkout))
        _run(host, container)
        _commit(host, container, reference, stand_in_config())
    finally:
        _remove(host, container)
    note("built")


def stand_in_config() -> dict[str, object]:
    """The image's configuration: that of the real image, with a label that marks it as a stand-in."""
    return {
        "Entrypoint": ["/usr/bin/tf_serving_entrypoint.sh"],
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "MODEL_BASE_PATH=/models",
            "MODEL_NAME=model",
        ],
        "ExposedPorts": {"8500/tcp": {}, "8501/tcp": {}},
        "Labels": {"slipway.stand-in": LABEL_TEXT},
    }


def debian_base(settings: Settings, host: str) -> str:
    """The image of Debian with Python, built from Debian's packages if the engine lacks it."""
    image = f"{WORK_NAME}/debian:{base_id()}"
    if not has_image(host, image):
        folder = settings.cache / "debootstrap"
        shutil.rmtree(folder, ignore_errors=True)
        run(["debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN, folder], timeout_s=900)
        for useless in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(folder / useless, ignore_errors=True)
        repository, _, tag = image.rpartition(":")
        query = {"fromSrc": "-", "repo": repository, "tag": tag}
        answer = engine.call(host, "POST", "/images/create", query=query, stream=_tar_stream(folder))
        _refuse(engine.stream_error(answer))
        shutil.rmtree(folder)
    return image


def _build_packages(settings: Settings, host: str) -> str:
    """The image of the base with the locked Python packages, compiled to bytecode inside it."""
    image = f"{WORK_NAME}/serving-packages:{packages_id(settings)}"
    if has_image(host, image):
        return image
    base = debian_base(settings, host)
    folder = settings.cache / "serving-packages"
    shutil.rmtree(folder, ignore_errors=True)
    run(
        [build_uv(settings), "pip", "install", "--quiet", "--target", folder, "--no-deps", "--require-hashes", "-p", sys.executable,
         "--python-version", PYTHON, "-r", settings.checkout / "local" / "serving" / "requirements.txt"],
        timeout_s=PULL_S,
    )  # fmt: skip
    for useless in NOT_RUN:
        shutil.rmtree(folder / useless)
    container = _create(host, base, _compile(SITE_PACKAGES))
    try:
        _put(host, container, "/", _tar_stream(folder, SITE_PACKAGES.lstrip("/")))
        _run(host, container)
        _commit(host, container, image)
    finally:
        _remove(host, container)
    shutil.rmtree(folder)
    return image


def _compile(*folders: str) -> dict[str, object]:
    """A container's configuration that compiles folders' modules to bytecode, since a pod's file system is read-only."""
    return {"Cmd": ["python3", "-m", "compileall", "-q", "-j", "2", *folders]}


def _program_layer(checkout: Path) -> Iterator[bytes]:
    """The server's files and an empty folder for models, as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        models = tarfile.TarInfo("models")
        models.type, models.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(models)
        for where, path in program_files(checkout).items():
            content = path.read_bytes()
            entry = tarfile.TarInfo(where)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    yield buffer.getvalue()


def _tar_stream(folder: Path, below: str = ".") -> Iterator[bytes]:
    """The folder's content as a tar in chunks, below the path `below`. At "." it keeps its owners, otherwise root owns it."""
    owner = ["--numeric-owner"] if below == "." else ["--owner=0", "--group=0", f"--transform=s,^\\.,{below},S"]
    with subprocess.Popen(["tar", "-C", folder, *owner, "-c", "."], stdout=subprocess.PIPE) as packing:
        assert packing.stdout  # noqa: S101  # set above
        while piece := packing.stdout.read(CHUNK_BYTES):
            yield piece


def _create(host: str, image: str, config: dict[str, object]) -> str:
    answer = engine.call(host, "POST", "/containers/create", body={"Image": image, **config})
    return str(json.loads(answer)["Id"])


def _put(host: str, container: str, folder: str, stream: Iterator[bytes]) -> None:
    engine.call(host, "PUT", f"/containers/{container}/archive", query={"path": folder}, stream=stream)


def _run(host: str, container: str) -> None:
    engine.call(host, "POST", f"/containers/{container}/start")
    engine.call(host, "POST", f"/containers/{container}/wait")


def _commit(host: str, container: str, reference: str, config: dict[str, object] | None = None) -> None:
    """Commit the container's files as an image, with this configuration in place of the container's own."""
    repository, _, tag = reference.rpartition(":")
    query = {"container": container, "repo": repository, "tag": tag}
    engine.call(host, "POST", "/commit", query=query, body=config or {})


def _remove(host: str, container: str) -> None:
    engine.call(host, "DELETE", f"/containers/{container}", query={"force": "true", "v": "true"})


def push(host: str, reference: str, note: Note) -> None:
    """Push the image if the registry does not have it."""
    repository, _, tag = reference.rpartition(":")
    if _in_registry(host, reference):
        return
    login = base64.urlsafe_b64encode(b"{}").decode()
    path = f"/images/{urllib.parse.quote(repository)}/push"
    _refuse(
        engine.stream_error(
            engine.call(host, "POST", path, query={"tag": tag}, headers={"X-Registry-Auth": login}, body={})
        )
    )
    note("pushed")


def _in_registry(host: str, reference: str) -> bool:
    try:
        engine.call(host, "GET", f"/distribution/{reference}/json", timeout_s=ASK_S)
    except StandError:
        return False
    return True


def _refuse(error: str | None) -> None:
    if error:
        raise StandError(
            f"stand-in image: {error}. Next: python3 -m local up, or name your own image with SLIPWAY_SERVING_IMAGE"
        )
