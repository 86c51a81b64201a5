"""Machines of an Airflow installation that share no file: each has its own copy of the package, of the DAG file and of the models."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from zipfile import ZipFile

import yaml
from wheel import DAG_FILE, PROJECT

PROGRAMS = Path(sys.executable).parent
NAMED = "def name():\n    return {name!r}\n"
POOL = "pymp-"  # what a worker's processes share, until it ends
END_LIMIT_S = 120  # a worker ends after the task that it runs


class Machine:
    """A folder that stands for a machine: home, temporary folder, installed wheel, `dags` and `models`, all its own."""

    def __init__(self, place, wheel, model, model_file):
        self.place, self.name, self.log = place, place.name, place / "log"
        for folder in ("home", "tmp", "dags", "models/served", "airflow/config"):
            (place / folder).mkdir(parents=True)
        with ZipFile(wheel) as archive:
            archive.extractall(place / "site")
        (place / "dags" / "slipway_models.py").write_text(DAG_FILE)
        served = place / "models" / "served"
        shutil.copytree(PROJECT / "include" / "served" / "digits-vit", served / "digits-vit")
        (served / f"{model}.yaml").write_text(yaml.safe_dump(model_file))
        (place / "airflow" / "config" / "this_machine.py").write_text(NAMED.format(name=self.name))

    def environment(self, settings):
        """The environment of its processes: its own folders, and these settings."""
        return {
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.place / "home"),
            "TMPDIR": str(self.place / "tmp"),
            "PYTHONPATH": str(self.place / "site"),
            "AIRFLOW_HOME": str(self.place / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.place / "dags"),
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "this_machine.name",  # all are on one host: tasks report this name
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.place / "airflow" / "logs"),
            "AIRFLOW__SLIPWAY__FOLDER": str(self.place / "models"),
            **settings,
        }

    def airflow(self, *words, **settings):
        """Run an Airflow process of this machine for the length of the block."""
        return running([PROGRAMS / "airflow", *words], self.environment(settings), self.place, self.log)

    def temporary(self):
        """What is in the temporary folder, without that of Celery's own pool."""
        return sorted(path.name for path in (self.place / "tmp").iterdir() if not path.name.startswith(POOL))

    def is_quiet(self, session):
        """Whether no process of this session is left, and no program that names this machine's folder."""
        return not processes(lambda words, of: of == session or str(self.place).encode() in words)


def processes(chosen):
    """The ids of the processes of which `chosen` is true, given their command line and the id of their session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
            if state != "Z" and chosen((folder / "cmdline").read_bytes(), int(session)):
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


@contextmanager
def running(command, environment, folder, log, given=None):
    """Run a program in a session of its own. It ends with the block, and with this process if that is killed."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", *map(str, command)], env=environment, cwd=folder, start_new_session=True,
            stdin=subprocess.PIPE if given else subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        if given:
            process.stdin.write(given.encode())
            process.stdin.close()
        yield process
    finally:
        end(process)


def end(process):
    """Ask a program to end, and wait for it; then kill what is left of its session. Its exit status."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(END_LIMIT_S)
    finally:
        kill(process)


def kill(process):
    """Kill a program and all of its session, as if its machine were lost: a task has a process group of its own."""
    if process.returncode is not None and Path(f"/proc/{process.pid}").exists():
        return  # it ended long ago, and another program has its number
    for pid in processes(lambda _, session: session == process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
