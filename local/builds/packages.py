"""Installs missing Debian packages, if nothing that is installed changes. No service of theirs starts by itself."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local.errors import StandError
from local.programs.locks import change_lock, locked
from local.programs.shell import find_program, run
from local.progress import Note
from local.settings import Settings

POSTGRES_PROGRAMS = "/usr/lib/postgresql"
CNI_PLUGINS = Path("/usr/lib/cni")
POLICY = Path("/usr/sbin/policy-rc.d")
CREATE_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")
DEBIAN = {"DEBIAN_FRONTEND": "noninteractive"}
OWN_PARTS = "SLIPWAY_DOCKER_HOST (your own engine), SLIPWAY_KUBECONFIG (your own cluster) or SLIPWAY_REGISTRY"

ENGINE_PROGRAMS = {"dockerd": "docker.io"}
CONTAINER_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
}
REGISTRY_PROGRAMS = {"docker-registry": "docker-registry"}
CLUSTER_PROGRAMS = {"etcd": "etcd-server"}
COMMON_PROGRAMS = {
    "debootstrap": "debootstrap",
    "skopeo": "skopeo",
    "git": "git",
    "curl": "curl",
    "flock": "util-linux",
}
TEST_PROGRAMS = {"redis": ("redis-server", "redis-server")}  # program and package, by the name for `env`


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What `apt-get install -s` would do."""

    installed: tuple[str, ...]
    removed: tuple[str, ...]
    replaced: tuple[str, ...]

    @property
    def harmless(self) -> bool:
        """True if no installed package would be removed or replaced."""
        return not self.removed and not self.replaced


def judge_simulation(text: str) -> Simulation:
    """Read apt's simulation: `Remv NAME`, `Inst NAME [old version] (…)` for a replacement, `Inst NAME (…)` for a new package."""
    removed = re.findall(r"^(?:Remv|Purg) (\S+)", text, re.MULTILINE)
    replaced = re.findall(r"^Inst (\S+) \[", text, re.MULTILINE)
    installed = re.findall(r"^Inst (\S+) \(", text, re.MULTILINE)
    return Simulation(installed=tuple(installed), removed=tuple(removed), replaced=tuple(replaced))


def plan_packages(*, own_engine: bool, own_cluster: bool, own_registry: bool) -> list[str]:
    """The packages whose programs this machine lacks. `own_…` is true for a part that the stand runs itself."""
    wanted = dict(COMMON_PROGRAMS)
    if own_engine:
        wanted |= ENGINE_PROGRAMS | CONTAINER_PROGRAMS
    if own_cluster:
        wanted |= CLUSTER_PROGRAMS | CONTAINER_PROGRAMS
    if own_registry:
        wanted |= REGISTRY_PROGRAMS
    packages = {package for program, package in wanted.items() if find_program(program) is None}
    if own_cluster and not (CNI_PLUGINS / "bridge").exists():
        packages.add("containernetworking-plugins")
    if postgres_programs() is None:
        packages.add("postgresql")
    return sorted(packages)


def postgres_programs() -> Path | None:
    """The folder of the programs of the newest PostgreSQL server, or None."""
    folders = sorted(Path(POSTGRES_PROGRAMS).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return folders[-1].parent if folders else None


def install(packages: list[str], note: Note) -> None:
    """Install the packages, after a simulation has shown that no installed package changes."""
    if not packages:
        note("all installed")
        return
    _simulate(packages)
    with _no_autostart():
        try:
            _install(packages)
        except StandError:  # old package lists may name files that the archive no longer has
            run(["apt-get", "update"], environment=DEBIAN, timeout_s=300)
            _simulate(packages)
            _install(packages)
    note("installed " + " ".join(packages))


def install_test_program(settings: Settings, name: str) -> Path:
    """The folder of one of TEST_PROGRAMS. Installs its Debian package if this machine lacks it."""
    program, package = TEST_PROGRAMS[name]
    with locked(change_lock(settings)):
        if find_program(program) is None:
            install([package], lambda _: None)
    found = find_program(program)
    if found is None:
        raise StandError(f"{program}: not found, though {package} is installed. Next: dpkg -L {package}")
    return found.parent


def _install(packages: list[str]) -> None:
    keep = ["-o", "Dpkg::Options::=--force-confold"]  # the user's configuration files are kept
    command = ["apt-get", "install", "-y", "--no-install-recommends", *keep, *packages]
    run(command, environment=DEBIAN, timeout_s=900, what_next=f"Next: apt-get install {' '.join(packages)}")


def _simulate(packages: list[str]) -> None:
    command = ["apt-get", "install", "-s", "--no-install-recommends", *packages]
    try:
        text = run(command, environment=DEBIAN)
    except StandError:  # package lists may be missing or old: fetch them once
        run(["apt-get", "update"], environment=DEBIAN, timeout_s=300)
        text = run(command, environment=DEBIAN, what_next=f"Next: set {OWN_PARTS}, or see docs/stand.md")
    verdict = judge_simulation(text)
    if not verdict.harmless:
        changes = ", ".join(
            [f"{name} removed" for name in verdict.removed] + [f"{name} replaced" for name in verdict.replaced]
        )
        raise StandError(
            f"Debian packages {' '.join(packages)}: installing them would change installed packages ({changes}). "
            f"Nothing was installed. Next: name your own parts with {OWN_PARTS}."
        )


@contextlib.contextmanager
def _no_autostart() -> Iterator[None]:
    """While the block installs packages, no service is started or enabled, and no database cluster is created."""
    before = _enabled_services()
    made = [path for path, text in _GUARDS.items() if _write_if_missing(path, text)]
    try:
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)
        for link in sorted(_enabled_services() - before):
            Path(link).unlink(missing_ok=True)


_GUARDS = {POLICY: "#!/bin/sh\nexit 101\n", CREATE_CLUSTER: "create_main_cluster = false\n"}


def _write_if_missing(path: Path, text: str) -> bool:
    if path.exists():
        return False
    if path == CREATE_CLUSTER and path.parent.exists():
        return False  # postgresql-common is installed: the user's configuration is kept
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return True


def _enabled_services() -> set[str]:
    """The links that make a service start by itself, of systemd and of sysvinit."""
    links = [*Path("/etc/systemd/system").glob("*.wants/*"), *Path("/etc").glob("rc[2-5].d/S*")]
    return {os.fspath(link) for link in links if link.is_symlink()}
