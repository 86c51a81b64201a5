"""Supervised programs: one supervisor for the shared parts and one for each checkout. It restarts programs that end."""

import contextlib
import http.client
import os
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.errors import StandError
from local.programs.processes import end_marked
from local.programs.shell import last_lines, run, wait_until
from local.programs.sockets import unix_rpc
from local.settings import MARK

START_S = 20
RUNNING = "RUNNING"
RETURN_AT_ONCE = False
# With this, a process that renames itself (setproctitle) keeps its environment readable, and so the mark.
READABLE = {"SPT_NOENV": "1"}
NOT_INHERITED = ("AIRFLOW", "SLIPWAY_", "KUBECONFIG", "DOCKER_HOST", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One supervised program. `environment` is added to the supervisor's own."""

    name: str
    command: tuple[str, ...]
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_wait_s: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """A supervisor: its folders, and the mark in the environment of all its processes."""

    mark: str
    run: Path
    logs: Path
    config: Path
    program: Path  # supervisord, from the dev environment
    directory: Path

    @property
    def socket(self) -> Path:
        """The socket of its XML-RPC server."""
        return self.run / "supervisor.sock"

    def log(self, name: str) -> Path:
        """The log file of one of its programs."""
        return self.logs / f"{name}.log"


def render_config(supervisor: Supervisor, programs: Sequence[Program]) -> str:
    """The supervisor's configuration file. It starts programs only on request, and restarts them when they end."""
    head = [
        "[supervisord]", f"pidfile={supervisor.run}/supervisor.pid", f"logfile={supervisor.logs}/supervisor.log",
        "logfile_maxbytes=5MB", "logfile_backups=1", "loglevel=info", "user=root", f"directory={supervisor.directory}",
        f"environment={MARK}=\"{supervisor.mark}\"", "",
        "[unix_http_server]", f"file={supervisor.socket}", "chmod=0700", "",
        "[rpcinterface:supervisor]", "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface", "",
        "[supervisorctl]", f"serverurl=unix://{supervisor.socket}", "",
    ]  # fmt: skip
    return "\n".join(head + [line for program in programs for line in _render_program(supervisor, program)])


def _render_program(supervisor: Supervisor, program: Program) -> list[str]:
    environment = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(program.environment.items()))
    return [
        f"[program:{program.name}]",
        "command=" + " ".join(_quoted(word) for word in program.command),
        *([f"user={program.user}"] if program.user else []),
        *([f"environment={environment}"] if environment else []),
        "autostart=false",
        "autorestart=true",
        "startsecs=1",
        "startretries=1000",  # a program that waits for another part is restarted until that part is up
        f"stopsignal={program.stop_signal}",
        f"stopwaitsecs={program.stop_wait_s}",
        "stopasgroup=false",
        "killasgroup=true",
        "redirect_stderr=true",
        f"stdout_logfile={supervisor.log(program.name)}",
        "stdout_logfile_maxbytes=20MB",
        "stdout_logfile_backups=1",
        "",
    ]


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(word: str) -> str:
    if '"' in word:
        raise ValueError(f"a supervised command cannot hold a double quote: {word}")
    return f'"{_escaped(word)}"' if any(letter in word for letter in " ;'#$&|") else _escaped(word)


def answers(supervisor: Supervisor) -> bool:
    """True if the supervisor responds."""
    return _state(supervisor) == RUNNING


def set_programs(supervisor: Supervisor, programs: Sequence[Program]) -> None:
    """Configure exactly these programs. Unchanged ones keep running; none is started."""
    for folder in (supervisor.run, supervisor.logs, supervisor.config.parent):
        folder.mkdir(parents=True, exist_ok=True)
    supervisor.config.write_text(render_config(supervisor, programs))
    if not answers(supervisor):
        _start_supervisor(supervisor)
        return
    rpc = _rpc(supervisor)
    added, changed, removed = rpc.supervisor.reloadConfig()[0]
    for name in [*changed, *removed]:
        rpc.supervisor.stopProcessGroup(name)
        rpc.supervisor.removeProcessGroup(name)
    for name in [*added, *changed]:
        rpc.supervisor.addProcessGroup(name)


def _start_supervisor(supervisor: Supervisor) -> None:
    """Start the supervisor, after ending the processes that a killed one may have left."""
    end_marked(supervisor.mark)
    supervisor.socket.unlink(missing_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(NOT_INHERITED)}
    path = os.pathsep.join([kept.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
    ours = {"PATH": path, MARK: supervisor.mark, **READABLE}
    words = [f"{key}={value}" for key, value in {**kept, **ours}.items()]
    run(["env", "-i", *words, supervisor.program, "-c", supervisor.config], directory=supervisor.directory)
    wait_until(lambda: answers(supervisor), seconds=START_S, what=f"supervisor {supervisor.mark}: no answer")


def start(supervisor: Supervisor, *names: str) -> None:
    """Start these programs if they do not run yet."""
    rpc = _rpc(supervisor)
    for name in names:
        try:
            rpc.supervisor.startProcess(name, RETURN_AT_ONCE)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise StandError(f"{name}: {fault.faultString}\n{log_end(supervisor, name)}") from fault


def stop(supervisor: Supervisor, *names: str) -> None:
    """Stop these programs in this order, if they run."""
    rpc = _rpc(supervisor)
    for name in names:
        with contextlib.suppress(xmlrpc.client.Fault):
            rpc.supervisor.stopProcess(name)


def states(supervisor: Supervisor) -> dict[str, str]:
    """The state of each program in the supervisor's terms; empty if the supervisor does not respond."""
    if not answers(supervisor):
        return {}
    processes: Any = _rpc(supervisor).supervisor.getAllProcessInfo()
    return {process["name"]: process["statename"] for process in processes}


def pids(supervisor: Supervisor) -> dict[str, int]:
    """The process id of each running program."""
    if not answers(supervisor):
        return {}
    processes: Any = _rpc(supervisor).supervisor.getAllProcessInfo()
    return {process["name"]: process["pid"] for process in processes if process["statename"] == RUNNING}


def shut_down(supervisor: Supervisor) -> None:
    """End the supervisor and every process that has its mark."""
    if answers(supervisor):
        with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Fault):
            _rpc(supervisor).supervisor.stopAllProcesses()
            _rpc(supervisor).supervisor.shutdown()
    end_marked(supervisor.mark)


def log_end(supervisor: Supervisor, name: str) -> str:
    """The path and last lines of a program's log."""
    log = supervisor.log(name)
    return f"  {log}:\n{last_lines(log.read_text(errors='replace'))}" if log.exists() else f"  no log at {log}"


def _rpc(supervisor: Supervisor) -> Any:
    return unix_rpc(supervisor.socket)


def _state(supervisor: Supervisor) -> str:
    try:
        return str(_rpc(supervisor).supervisor.getState()["statename"])
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return "absent"
