"""Python environments, built once for each lock file and kept in the cache."""

import hashlib
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from local.builds.packages import install
from local.programs.locks import locked
from local.programs.shell import run
from local.settings import Settings

UV_LOCK = "local/builds/uv.txt"
WHEELS = Path("/usr/share/python-wheels")  # where Debian's package python3-pip-whl puts pip
BUILD_S = 3600  # the onnx environment downloads about three gigabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The name of an environment, and its lock file."""

    name: str
    lock: str


ENVIRONMENTS = {
    "audit": Environment(name="audit", lock="local/builds/audit.txt"),
    "dev": Environment(name="dev", lock="requirements-dev.txt"),
    "load": Environment(name="load", lock="include/load/requirements.txt"),
    "model": Environment(name="model", lock="include/model/requirements.txt"),
    "node": Environment(name="node", lock="local/azurite/node.txt"),
    "onnx": Environment(name="onnx", lock="include/onnx_model/requirements.txt"),
    "onnx-server": Environment(name="onnx-server", lock="include/onnx_server/requirements.txt"),
    "openvino": Environment(name="openvino", lock="benchmarks/openvino.txt"),
    "serving": Environment(name="serving", lock="local/serving/requirements.txt"),
}


def environment_path(settings: Settings, name: str) -> Path:
    """The path of the environment of this checkout's lock file, built or not."""
    lock = settings.checkout / ENVIRONMENTS[name].lock
    return settings.cache / "envs" / f"{name}-{content_id(lock.read_bytes())}"


def content_id(content: bytes) -> str:
    """Twelve hex digits of the content's hash."""
    return hashlib.sha256(content).hexdigest()[:12]


def build_environment(settings: Settings, name: str) -> Path:
    """The path of the environment. Builds it if it is missing or incomplete."""
    path = environment_path(settings, name)
    with locked(settings.cache / "envs" / f"{name}.lock"):
        if (path / "complete").exists():
            return path
        shutil.rmtree(path, ignore_errors=True)
        uv = build_uv(settings)
        # It is built at its final path, since programs in bin/ name their interpreter by path. `complete` is written last.
        run([uv, "venv", "--quiet", "-p", sys.executable, path])
        run(
            [uv, "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", "-p", path / "bin" / "python",
             settings.checkout / ENVIRONMENTS[name].lock],
            timeout_s=BUILD_S,
            what_next=f"Next: python3 -m local env {name}",
        )  # fmt: skip
        (path / "complete").touch()
    return path


def build_uv(settings: Settings) -> Path:
    """The program `uv` in a folder of its own. Installs it if it is missing; pip refuses a file without its lock's hash."""
    lock = settings.checkout / UV_LOCK
    path = settings.cache / f"uv-{content_id(lock.read_bytes())}"
    with locked(settings.cache / "uv.lock"):
        if not (path / "complete").exists():
            shutil.rmtree(path, ignore_errors=True)
            program, environment = pip()
            command: list[str | Path] = [
                *program,
                "install",
                "--quiet",
                "--target",
                path,
                "--require-hashes",
                "-r",
                lock,
            ]
            run(command, timeout_s=300, environment=environment)
            (path / "complete").touch()
    return path / "bin" / "uv"


def pip() -> tuple[list[str], dict[str, str]]:
    """The command that runs pip, and the environment that it needs.

    Debian has pip and venv in separate packages. The package with pip as a wheel fits every patch level of python3, so
    installing it never replaces the user's Python.
    """
    program = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:
        if not any(WHEELS.glob("pip-*.whl")):
            install(["python3-pip-whl"], lambda _note: None)
        return program, {**os.environ, "PYTHONPATH": str(max(WHEELS.glob("pip-*.whl")))}
    return program, dict(os.environ)
