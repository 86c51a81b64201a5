"""Python environments from the lock files, built once per lock and kept in the cache."""

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

UV = "0.13.9"
WHEELS = Path("/usr/share/python-wheels")  # where Debian keeps pip for those who have none
BUILD_S = 1800  # the model environment downloads about a gigabyte


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A named environment and the lock file that it is made from."""

    name: str
    lock: str


ENVIRONMENTS = {
    "dev": Environment(name="dev", lock="requirements-dev.txt"),
    "model": Environment(name="model", lock="include/model/requirements.txt"),
    "serving": Environment(name="serving", lock="local/serving/requirements.txt"),
}


def environment_path(settings: Settings, name: str) -> Path:
    """Where the environment of this checkout's lock is, built or not."""
    lock = settings.checkout / ENVIRONMENTS[name].lock
    return settings.cache / "envs" / f"{name}-{content_id(lock.read_bytes())}"


def content_id(content: bytes) -> str:
    """Twelve hex digits that change with the content."""
    return hashlib.sha256(content).hexdigest()[:12]


def build_environment(settings: Settings, name: str) -> Path:
    """The environment's path; it is built first where it is missing, under another name until it is complete."""
    path = environment_path(settings, name)
    with locked(settings.cache / "envs" / f"{name}.lock"):
        if (path / "complete").exists():
            return path
        shutil.rmtree(path, ignore_errors=True)
        uv = build_uv(settings)
        # The place is the final one, since programs in bin/ name their interpreter by path; `complete` is written last.
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
    """The program `uv`, in a small folder of its own, fetched where it is missing."""
    path = settings.cache / f"uv-{UV}"
    with locked(settings.cache / "uv.lock"):
        if not (path / "complete").exists():
            shutil.rmtree(path, ignore_errors=True)
            program, environment = pip()
            run([*program, "install", "--quiet", "--target", path, f"uv=={UV}"], timeout_s=300, environment=environment)
            (path / "complete").touch()
    return path / "bin" / "uv"


def pip() -> tuple[list[str], dict[str, str]]:
    """Python's installer, and the environment it needs.

    Debian keeps it, as it does venv, in packages of their own. The one with pip as a wheel fits every patch level of
    python3, so that installing it never replaces the user's.
    """
    program = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:
        if not any(WHEELS.glob("pip-*.whl")):
            install(["python3-pip-whl"], lambda _note: None)
        return program, {**os.environ, "PYTHONPATH": str(max(WHEELS.glob("pip-*.whl")))}
    return program, dict(os.environ)
