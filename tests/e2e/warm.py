"""A Python process that has imported Airflow once, and forks for each program that it runs.

`airflow dags test` spends eight seconds on imports, a worker's task five. A test that needs thirty of them pays for the imports once.
Each program still has its own process, environment and working directory. Only third-party modules
are shared.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

IMPORTED = [
    "airflow.cli.cli_parser", "airflow.cli.commands.dag_command", "airflow.dag_processing.collection", "alembic.command",
    "airflow.api_fastapi.execution_api.app", "airflow.api_fastapi.execution_api.routes",
    "airflow.api_fastapi.execution_api.versions", "a2wsgi", "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner", "airflow.jobs.job", "airflow.providers.standard.operators.python",
    "airflow.providers.cncf.kubernetes.hooks.kubernetes", "airflow.providers.docker.hooks.docker",
    "kubernetes.client", "kubernetes.dynamic", "kubernetes_asyncio.client", "croniter", "grpc", "huggingface_hub", "pydantic",
]  # fmt: skip


GOOGLE = [
    "airflow.providers.google.cloud.operators.kubernetes_engine",
    "google.cloud.container_v1",
]  # they take five seconds more
POLL_S = 1.0
SKIP_S = 0.05  # `airflow dags test` sleeps a second for each task that it skips


class Finished(subprocess.CompletedProcess):
    """A program that has ended, and the largest memory of one of its processes: `peak_mib`."""

    peak_mib = 0


@dataclass(frozen=True, slots=True)
class Warm:
    """The parent process."""

    process: subprocess.Popen

    @classmethod
    def start(cls, environment, *more):
        """Start it, with these modules imported too. Airflow then reads its home and configuration from `environment`."""
        command = [sys.executable, __file__, *more]
        return cls(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def run(self, program, *words, environment, directory=None, timeout_s, began=None, kill_after_s=None):
        """Run a script (a path) or a module (a name) to its end, as `subprocess.run` would.

        With `kill_after_s` its process group is killed that long after the file `began` appears.
        """
        with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
            order = {
                "program": str(program), "words": [str(word) for word in words], "environment": environment,
                "directory": str(directory or Path.cwd()), "outputs": [stdout.name, stderr.name], "timeout_s": timeout_s,
                "began": str(began), "kill_after_s": kill_after_s,
            }  # fmt: skip
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            status, peak_kib = map(int, self.process.stdout.readline().split())
            done = Finished(order["program"], status, stdout.read(), stderr.read())
            done.peak_mib = peak_kib // 1024
            return done

    def end(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=120)


def serve(orders, answers):
    """Fork for each order until there are no more."""
    for line in orders:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            become(order)
        if order["kill_after_s"] is not None:
            kill_later(child, order)
        _, status, used = os.wait4(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)} {used.ru_maxrss}\n")
        answers.flush()


def kill_later(child, order):
    """Kill a program's process group with SIGKILL, `kill_after_s` after its work began."""
    import signal

    def ended():
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    while not Path(order["began"]).exists() and not ended():
        time.sleep(0.001)
    end_s = time.monotonic() + order["kill_after_s"]
    while time.monotonic() < end_s and not ended():
        time.sleep(0.001)
    if not ended():
        os.killpg(child, signal.SIGKILL)


def become(order):
    """Run the program in this process; never returns."""
    import runpy
    import signal

    code = 1
    try:
        signal.alarm(order["timeout_s"])  # the end of a program that hangs
        os.setsid()
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["directory"])
        tempfile.tempdir = None  # so that TMPDIR is read again
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, path in enumerate(order["outputs"], 1):
            os.dup2(os.open(path, os.O_WRONLY), stream)
        sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        sys.argv = [order["program"], *order["words"]]
        if order["program"] == "airflow":
            poll_often()
        run = runpy.run_path if order["program"].endswith(".py") else runpy.run_module
        run(order["program"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def poll_often():
    """Make waits poll every second: without a scheduler and a triggerer, no event can come too soon."""
    sys.path.append(os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"])
    from slipway.dag.deferral import Wait
    from slipway.dag.tasks.waits import AddressWait, RolloutWait

    Wait.poll_s = AddressWait.poll_s = RolloutWait.poll_s = POLL_S


if __name__ == "__main__":
    from importlib import import_module

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of imports is not an answer
    for name in (*IMPORTED, *sys.argv[1:]):
        import_module(name)
    import_module("airflow.sdk.definitions.dag").time = SimpleNamespace(sleep=lambda _: time.sleep(SKIP_S))
    serve(sys.stdin, answers)
