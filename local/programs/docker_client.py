"""Docker's client, for what the engine's API alone cannot do: a build with BuildKit."""

import os
from pathlib import Path

from local.programs.shell import find_program, run

DEBIAN_CLIENT = Path("/usr/bin/docker")  # in the package of the engine; it builds with BuildKit without a plugin
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
BUILD_S = 1800


def docker(host: str, *words: str | Path, stdin: str | None = None) -> str:
    """Run the client on an engine; its output. Raises StandError with its last lines."""
    client = DEBIAN_CLIENT if DEBIAN_CLIENT.exists() else find_program("docker") or "docker"
    return run(
        [client, *words], environment={"DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}, stdin=stdin, timeout_s=BUILD_S,
        what_next="Next: if there is no client, or it has no BuildKit, apt-get install docker.io",
    )  # fmt: skip


def build_image(host: str, folder: Path, base: str, reference: str, *, target: str | None = None) -> None:
    """Build the Dockerfile of a folder on a base, or one stage of it, with this machine's network and certificates. Raises StandError."""
    bundle = Path(os.environ.get("SSL_CERT_FILE", CERTIFICATES))
    secrets = [f"--secret=id=ca,src={bundle}"] if bundle.exists() else []
    stage = [f"--target={target}"] if target else []
    docker(host, "build", "--network=host", f"--build-arg=BASE={base}", *secrets, *stage, "--tag", reference, folder)
