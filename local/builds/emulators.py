"""Emulators of clouds for tests: each is one program, built once and kept in the cache.

`fake-gcs` is fsouza/fake-gcs-server, which emulates Google Cloud Storage. It keeps buckets in memory and checks no
credentials: it proves that our requests are valid, not that Google would allow them.
"""

import os
import shutil
from pathlib import Path

from local.builds.binary import BUILD_S, find_go
from local.programs.locks import locked
from local.programs.shell import run
from local.settings import Settings

EMULATORS = {"fake-gcs": "github.com/fsouza/fake-gcs-server@v1.56.1"}


def build_emulator(settings: Settings, name: str) -> Path:
    """The folder with the emulator's program. Builds it if this version is not in the cache: one to two minutes."""
    module = EMULATORS[name]
    folder = settings.cache / f"{name}-{module.rpartition('@')[2]}"
    with locked(settings.cache / f"{name}.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            go = find_go(settings)
            environment = {"CGO_ENABLED": "0", "GOBIN": str(folder), "PATH": f"{go.parent}:{os.environ['PATH']}"}
            build: list[str | Path] = [go, "install", "-p", "2", "-trimpath", "-ldflags", "-s -w", module]
            run(
                build,
                environment=environment,
                directory=settings.cache,
                timeout_s=BUILD_S,
                what_next=f"Next: go install {module}",
            )
            (folder / "complete").touch()
    return folder
