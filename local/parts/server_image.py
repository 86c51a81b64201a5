"""The image of a model server, built layer by layer: Debian with Python, the Python packages, the program.

A change of the program rebuilds only the last, small layer. The tag of each layer is a hash of its inputs, by which the engine
finds it again.
"""

import base64
import io
import json
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from local.builds.environments import build_uv, content_id
from local.errors import StandError
from local.parts import engine
from local.programs.locks import locked
from local.programs.shell import run
from local.progress import Note
from local.settings import Settings

ASK_S = 20  # for a question about an image, without its content
INSTALL_S = 1800

DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates"
PYTHON = "3.11"  # the version in this Debian
SITE_PACKAGES = f"/usr/local/lib/python{PYTHON}/dist-packages"
WORK_NAME = "slipway-stand"  # prefix of the layers' image names in the engine
CHUNK_BYTES = 1 << 20
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerImage:
    """What the image of a model server is made of. Paths of files are relative to the checkout."""

    name: str  # of the image in the registry
    lock: str
    not_run: tuple[str, ...] = ()  # folders of packages that the server does not need
    packages: tuple[str, ...] = ()  # folders that become packages in the image
    programs: Mapping[str, str]  # paths in the image, and the files that are put there
    entrypoint: str  # its path in the image
    labels: Mapping[str, str]

    def files(self, checkout: Path) -> dict[str, Path]:
        """The program's files, by their path in the image."""
        found = {where: checkout / path for where, path in self.programs.items()}
        for folder in (checkout / package for package in self.packages):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix != ".pyc":
                    found[f"{SITE_PACKAGES}/{folder.name}/{path.relative_to(folder)}"] = path
        return found

    def config(self) -> dict[str, object]:
        """The image's configuration: that of TensorFlow Serving's image, with another entrypoint and labels."""
        return {
            "Entrypoint": [self.entrypoint],
            "Env": [PATH, "MODEL_BASE_PATH=/models", "MODEL_NAME=model"],
            "ExposedPorts": {"8500/tcp": {}, "8501/tcp": {}},
            "Labels": dict(self.labels),
        }


def provide_image(settings: Settings, host: str, image: ServerImage, reference: str, note: Note) -> None:
    """Build the layers that the engine does not have yet, and push the image if the registry does not have it."""
    with locked(settings.cache / f"{image.name}.lock"):
        _build(settings, host, image, reference, note)
        if push_image(host, reference):
            note("pushed")


def has_image(host: str, reference: str) -> bool:
    """True if the engine has this image."""
    try:
        engine.call(host, "GET", f"/images/{reference}/json", timeout_s=ASK_S)
    except StandError:
        return False
    return True


def image_id(settings: Settings, image: ServerImage) -> str:
    """The hash of all inputs of an image."""
    files = [where.encode() + path.read_bytes() for where, path in image.files(settings.checkout).items()]
    config = json.dumps(image.config(), sort_keys=True).encode()
    return content_id(packages_id(settings, image).encode() + b"".join(files) + config)


def packages_id(settings: Settings, image: ServerImage) -> str:
    """The hash of the locked Python packages and of the Debian base."""
    lock = (settings.checkout / image.lock).read_bytes()
    return content_id(lock + base_id().encode() + " ".join(image.not_run).encode())


def base_id() -> str:
    """The hash of the Debian release and its packages."""
    return content_id(f"{DEBIAN} {DEBIAN_PACKAGES}".encode())


def _build(settings: Settings, host: str, image: ServerImage, reference: str, note: Note) -> None:
    if has_image(host, reference):
        note("in the engine already")
        return
    packages = _build_packages(settings, host, image)
    compiled = [f"{SITE_PACKAGES}/{Path(folder).name}" for folder in image.packages]
    container = _create(host, packages, _compile(*compiled))
    try:
        _put(host, container, "/", _program_layer(image.files(settings.checkout)))
        _run(host, container)
        _commit(host, container, reference, image.config())
    finally:
        _remove(host, container)
    note("built")


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


def _build_packages(settings: Settings, host: str, image: ServerImage) -> str:
    """The reference of the base with the locked Python packages, compiled to bytecode inside it."""
    reference = f"{WORK_NAME}/{image.name}-packages:{packages_id(settings, image)}"
    if has_image(host, reference):
        return reference
    base = debian_base(settings, host)
    folder = settings.cache / f"{image.name}-packages"
    shutil.rmtree(folder, ignore_errors=True)
    run(
        [build_uv(settings), "pip", "install", "--quiet", "--target", folder, "--no-deps", "--require-hashes", "-p", sys.executable,
         "--python-version", PYTHON, "-r", settings.checkout / image.lock],
        timeout_s=INSTALL_S,
    )  # fmt: skip
    for useless in image.not_run:
        shutil.rmtree(folder / useless)
    container = _create(host, base, _compile(SITE_PACKAGES))
    try:
        _put(host, container, "/", _tar_stream(folder, SITE_PACKAGES.lstrip("/")))
        _run(host, container)
        _commit(host, container, reference)
    finally:
        _remove(host, container)
    shutil.rmtree(folder)
    return reference


def _compile(*folders: str) -> dict[str, object]:
    """A container's configuration that compiles the modules of folders to bytecode, since a pod's file system is read-only."""
    return {"Cmd": ["python3", "-m", "compileall", "-q", "-j", "2", *folders]}


def _program_layer(files: Mapping[str, Path]) -> Iterator[bytes]:
    """The server's files and an empty folder for models, as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        models = tarfile.TarInfo("models")
        models.type, models.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(models)
        for where, path in files.items():
            content = path.read_bytes()
            entry = tarfile.TarInfo(where.lstrip("/"))
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


def push_image(host: str, reference: str) -> bool:
    """Push the image if the registry does not have it; whether it was pushed."""
    repository, _, tag = reference.rpartition(":")
    if registry_digest(host, reference):
        return False
    login = base64.urlsafe_b64encode(b"{}").decode()
    path = f"/images/{urllib.parse.quote(repository)}/push"
    _refuse(
        engine.stream_error(
            engine.call(host, "POST", path, query={"tag": tag}, headers={"X-Registry-Auth": login}, body={})
        )
    )
    return True


def registry_digest(host: str, reference: str) -> str | None:
    """The digest of an image in its registry; None if it is not there."""
    try:
        answer = engine.call(host, "GET", f"/distribution/{reference}/json", timeout_s=ASK_S)
    except StandError:
        return None
    return str(json.loads(answer)["Descriptor"]["digest"])


def _refuse(error: str | None) -> None:
    if error:
        raise StandError(
            f"image of a model server: {error}. Next: python3 -m local up, or name your own image with SLIPWAY_SERVING_IMAGE"
        )
