"""The state of one checkout: its slot (ports and addresses), its secrets, its supervisor."""

import base64
import secrets
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from local import settings as at
from local.builds.environments import environment_path
from local.errors import StandError
from local.programs.supervision import Supervisor
from local.settings import Settings

PASSWORD_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A number from which a checkout's ports and addresses follow, so that no two checkouts share one."""

    number: int

    @property
    def airflow_port(self) -> int:
        """The port of Airflow's UI and API."""
        return at.AIRFLOW_PORT + self.number

    @property
    def gke_port(self) -> int:
        """The port of the emulator of Google, for gRPC and REST."""
        return at.GKE_PORT + self.number

    @property
    def gke_control_port(self) -> int:
        """The port of the emulator's control API."""
        return at.GKE_CONTROL_PORT + self.number

    @property
    def gke_registry_port(self) -> int:
        """The port of the registry that requires a token."""
        return at.GKE_REGISTRY_PORT + self.number

    @property
    def gke_token_port(self) -> int:
        """The port of that registry's token server."""
        return at.GKE_TOKEN_PORT + self.number

    @property
    def address_prefix(self) -> str:
        """The first three numbers of the checkout's load-balancer addresses."""
        return f"127.20.{self.number}"


def choose_slot(taken: Collection[int], port_free: Callable[[int], bool]) -> int:
    """The lowest slot that no checkout has and whose Airflow port is free."""
    for number in at.SLOTS:
        if number not in taken and port_free(at.AIRFLOW_PORT + number):
            return number
    raise StandError(
        f"no free slot among {len(at.SLOTS)}: too many checkouts are up. Next: python3 -m local down in one of them"
    )


def claim_slot(settings: Settings) -> Slot:
    """The slot of this checkout, claimed by the first `up`. The caller holds the change lock."""
    if slot := read_slot(settings):
        return slot
    taken = {int(path.read_text()) for path in settings.home.parent.glob("*/slot")}
    settings.home.mkdir(parents=True, exist_ok=True)
    number = choose_slot(taken, port_free)
    (settings.home / "slot").write_text(str(number))
    return Slot(number=number)


def read_slot(settings: Settings) -> Slot | None:
    """The slot of this checkout, or None."""
    path = settings.home / "slot"
    return Slot(number=int(path.read_text())) if path.exists() else None


def port_free(port: int) -> bool:
    """True if no process listens on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def supervisor(settings: Settings) -> Supervisor:
    """The supervisor of this checkout."""
    return Supervisor(
        mark=settings.checkout_id,
        run=settings.home_run,
        logs=settings.home / "logs",
        config=settings.home / "supervisor.conf",
        program=environment_path(settings, "dev") / "bin" / "supervisord",
        directory=settings.checkout,
    )


def secret(settings: Settings, name: str) -> str:
    """A random string of this checkout, generated once and readable only by its owner."""
    path = settings.home / "secrets" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return path.read_text()


def password_file(settings: Settings) -> Path:
    """The file that contains only Airflow's generated password."""
    path = settings.home / "airflow-password"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(PASSWORD_BYTES))
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
    partial = path.with_name(path.name + ".partial")
    partial.touch(mode=0o600)
    partial.chmod(0o600)
    partial.write_text(text)
    partial.rename(path)
