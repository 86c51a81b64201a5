"""Restores the machine: filter rules, links, mounts, cgroups, kernel settings and host names as they were before the stand."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from local import settings as at
from local.errors import StandError
from local.parts import hosts
from local.programs.shell import find_program, run
from local.settings import Settings

KERNEL_SETTINGS = (
    "net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "net/ipv6/conf/all/forwarding", "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established", "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
)  # fmt: skip
OUR_CHAINS = ("KUBE-", "CNI-", "DOCKER")
OUR_WORDS = (at.DOCKER_BRIDGE, at.POD_BRIDGE, at.POD_RANGE, at.DOCKER_POOL, "172.29.213.0/24")
OUR_CGROUPS = ("kubepods", "slipway")
FIXED_PATHS = (  # what the kubelet and an engine write outside their configured folders
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/containers",
    "/var/log/pods",
    "/var/run/kubernetes",
    "/etc/docker/key.json",
)
FILTERS = ("iptables", "ip6tables")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of the machine before the first shared part started."""

    boot: str
    kernel: dict[str, str]
    filters: dict[str, str]
    cgroups: list[str]
    folders: list[str]
    namespaces: list[str]
    links: list[str]


def save_snapshot(settings: Settings) -> None:
    """Write a snapshot of the machine, unless there is one since the machine booted."""
    path = _snapshot_file(settings)
    known = json.loads(path.read_text()) if path.exists() else None
    if known and known["boot"] == _boot():
        return
    now = asdict(_take_snapshot())
    if known:  # a reboot keeps the folders and nothing else
        now["folders"] = known["folders"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=1))


def remove_leftovers(settings: Settings) -> None:
    """Restore the machine. Call it when no process of the shared parts runs any more."""
    path = _snapshot_file(settings)
    before = Snapshot(**json.loads(path.read_text())) if path.exists() else None
    if before and before.boot == _boot():  # without a snapshot nothing is removed that may be the user's
        _empty_cgroups(before)
        _remove_namespaces(before)
        _remove_links(before)
        _remove_rules(before)
        _restore_kernel(before)
        _remove_paths(before)
    hosts.remove_names()
    _unmount(settings)
    path.unlink(missing_ok=True)


def find_leftovers(settings: Settings) -> list[str]:
    """What the stand has left on the machine, one line each. `doctor` shows it after a `down`."""
    rules = [line for text in _filters().values() for line in text.splitlines() if _is_ours(line)]
    links = [link for link in _links() if link in {at.DOCKER_BRIDGE, at.POD_BRIDGE}]
    mounts = [str(path) for path in _our_mounts(settings)]
    ours = {"rule": rules, "link": links, "mount": mounts, f"line in {hosts.HOSTS}:": hosts.our_lines()}
    return [f"{kind} {one}" for kind, those in ours.items() for one in those]


def make_bridge(name: str, address: str) -> None:
    """Create a bridge with this address if it is missing."""
    if name not in _links():
        run(["ip", "link", "add", name, "type", "bridge"])
    run(["ip", "addr", "replace", address, "dev", name])
    run(["ip", "link", "set", name, "up"])


def allow_forwarding() -> None:
    """Enable IP forwarding between bridges. An engine that finds it enabled does not change the FORWARD policy."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def plan_rule_removal(before: str, now: str) -> str:
    """Input for `iptables-restore --noflush` that removes what the stand added; empty if it added nothing.

    Both texts are `iptables-save` output. Our rules in the user's chains are deleted first, then our chains.
    """
    known = set(_lines_by_table(before))
    tables: dict[str, list[str]] = {}
    for table, line in _lines_by_table(now):
        if (table, line) in known or not _is_ours(line):
            continue
        chain = line.split()[0].removeprefix(":") if line.startswith(":") else line.split()[1]
        if line.startswith(":"):
            tables.setdefault(table, []).append(f"-F {chain}")
        elif not chain.startswith(OUR_CHAINS):
            tables.setdefault(table, []).insert(0, "-D" + line.removeprefix("-A"))
    return "".join(_table_text(table, commands) for table, commands in tables.items())


def _table_text(table: str, commands: list[str]) -> str:
    flushed = [command for command in commands if command.startswith("-F")]
    deleted = [command for command in commands if command.startswith("-D")]
    removed = ["-X" + command.removeprefix("-F") for command in flushed]
    return "\n".join([f"*{table}", *deleted, *flushed, *removed, "COMMIT", ""])


def _lines_by_table(text: str) -> list[tuple[str, str]]:
    """Each chain and rule with its table, without the packet counts."""
    table, lines = "", []
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith((":", "-A")):
            lines.append((table, re.sub(r" \[\d+:\d+\]$", "", line)))
    return lines


def _is_ours(line: str) -> bool:
    words = line.removeprefix(":").split()
    named = any(word.startswith(OUR_CHAINS) for word in words)
    return line.startswith((":", "-A")) and (named or any(word in line for word in OUR_WORDS))


def _take_snapshot() -> Snapshot:
    return Snapshot(
        boot=_boot(),
        kernel={
            name: path.read_text().strip() for name in KERNEL_SETTINGS if (path := Path("/proc/sys") / name).exists()
        },
        filters=_filters(),
        cgroups=[str(path) for path in _top_cgroups()],
        folders=[folder for folder in FIXED_PATHS if Path(folder).exists()],
        namespaces=[path.name for path in _namespaces()],
        links=_links(),
    )


def _snapshot_file(settings: Settings) -> Path:
    return settings.shared / "before.json"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _filters() -> dict[str, str]:
    return {name: run([f"{name}-save"]) for name in FILTERS if find_program(f"{name}-save")}


def _links() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def _namespaces() -> list[Path]:
    folder = Path("/run/netns")
    return sorted(folder.iterdir()) if folder.exists() else []


def _top_cgroups() -> list[Path]:
    roots = [
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] in {"cgroup", "cgroup2"}
    ]
    return [path for root in roots for path in Path(root).iterdir() if path.is_dir()]


def _our_cgroups(before: Snapshot) -> list[Path]:
    known = set(before.cgroups)
    return [path for path in _top_cgroups() if path.name.startswith(OUR_CGROUPS) and str(path) not in known]


def _empty_cgroups(before: Snapshot) -> None:
    """Kill the processes that still run in our cgroups, and remove the cgroups, innermost first."""
    for top in _our_cgroups(before):
        folders = [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
        for folder in folders:
            for pid in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    for top in _our_cgroups(before):
        for name, _, _ in os.walk(top, topdown=False):
            _remove_cgroup(Path(name))


def _remove_cgroup(folder: Path) -> None:
    for _ in range(30):  # a killed process leaves its cgroup with a short delay
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return


def _our_mounts(settings: Settings) -> list[Path]:
    """The mount points below our folders, innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # Not the whole cache: it may be a mount point itself.
    roots = (settings.run, settings.shared, settings.cache / "docker", settings.cache / "containerd")
    ours = [Path(point) for point in points if any(Path(point).is_relative_to(root) for root in roots)]
    return sorted(ours, key=lambda path: len(path.parts), reverse=True)


def _unmount(settings: Settings) -> None:
    for point in _our_mounts(settings):
        try:
            run(["umount", point])
        except StandError:
            run(["umount", "--lazy", point])


def _remove_namespaces(before: Snapshot) -> None:
    known = set(before.namespaces)
    for path in _namespaces():
        if path.name.startswith("cni-") and path.name not in known:
            with contextlib.suppress(StandError):
                run(["umount", path])
            path.unlink(missing_ok=True)


def _remove_links(before: Snapshot) -> None:
    known = set(before.links)
    for link in _links():
        if link not in known and (link in {at.DOCKER_BRIDGE, at.POD_BRIDGE} or _is_bridge_of_pool(link)):
            run(["ip", "link", "delete", link])


def _is_bridge_of_pool(link: str) -> bool:
    """True for a bridge that our engine created for a Docker network."""
    prefix = at.DOCKER_POOL.split(".0.0/")[0]
    return link.startswith("br-") and f"inet {prefix}." in run(["ip", "-4", "addr", "show", "dev", link])


def _remove_rules(before: Snapshot) -> None:
    for name, now in _filters().items():
        if text := plan_rule_removal(before.filters.get(name, ""), now):
            run([f"{name}-restore", "--noflush"], stdin=text, what_next=f"Next: compare {name}-save with docs/stand.md")


def _restore_kernel(before: Snapshot) -> None:
    for name, value in before.kernel.items():
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text().strip() != value:
            with contextlib.suppress(OSError):
                path.write_text(value)


def _remove_paths(before: Snapshot) -> None:
    for folder in FIXED_PATHS:
        if folder not in before.folders:
            _remove(Path(folder))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
