"""Measure what Airflow's own processes cost while no run is due, with 1, 10 and 100 model files: `make bench-idle`.

One Airflow for each number of model files, all at the same time, each with its own database in the stand's PostgreSQL: a
scheduler and a DAG processor with Airflow's default intervals. Each model has a schedule, and none is due. The processor time of
both, and of all processes that they start, is read before and after some minutes. The figures go into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from benchmarks.own_stand import PROJECT
from benchmarks.refresh_parts import FLEETS, write_fleet
from benchmarks.refresh_report import PAGE
from benchmarks.refresh_times import machine, place
from local.parts.airflow import database_url
from local.settings import Settings, settings_here

BEGIN = "<!-- written by `make bench-idle`, which replaces all text between these marks -->"
END = "<!-- end of bench-idle -->"
PROGRAMS = ("scheduler", "dag-processor")
KINDS = 2  # DAGs of each model file: refresh and rollback
KNOWN_S = 600  # until an Airflow knows all DAGs; usually half a minute
SETTLE_S = 60  # two parses: the first ones also write the DAGs
MONTHS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleAirflow:
    """A scheduler and a DAG processor, by name, and their database."""

    files: int
    programs: Mapping[str, subprocess.Popen[bytes]]
    database: Engine

    def count(self, what: str) -> int:
        """The number that a query gives."""
        with self.database.connect() as connection:
            return int(connection.execute(text(what)).scalar_one())

    def wait_known(self) -> None:
        """Wait until all DAGs are stored. Raises RuntimeError if they are not in time."""
        end_s = time.monotonic() + KNOWN_S
        while self.count("SELECT count(*) FROM dag WHERE NOT is_paused") < KINDS * self.files:
            if time.monotonic() > end_s or any(one.poll() is not None for one in self.programs.values()):
                raise RuntimeError(f"Airflow with {self.files} model files does not know all DAGs after {KNOWN_S} s")
            time.sleep(1)

    def processor_s(self) -> dict[str, float]:
        """Seconds of processor time since the start, by program."""
        return {name: tree_s(process.pid) for name, process in self.programs.items()}


@contextmanager
def idle_airflow(settings: Settings, scratch: Path, files: int) -> Iterator[IdleAirflow]:
    """Run an Airflow with this number of model files; ends it and drops its database afterwards."""
    month = (datetime.now(UTC).month + MONTHS // 2 - 1) % MONTHS + 1  # half a year from now, and half a year ago
    folder = write_fleet(scratch, files, schedule=f"0 0 1 {month} *")
    name = f"idle_{secrets.token_hex(4)}"
    server = create_engine(database_url(settings), isolation_level="AUTOCOMMIT")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(PROJECT / "plugins"),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(settings, name),
        "AIRFLOW__SLIPWAY__FOLDER": str(folder),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    airflow = [sys.executable, "-m", "airflow"]
    with ExitStack() as ended:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        ended.callback(_drop, server, name)
        with (folder / "log").open("wb") as log:
            subprocess.run([*airflow, "db", "migrate"], env=environment, stdout=log, stderr=log, check=True)
            programs = {}
            for program in PROGRAMS:
                words = (program, "--skip-serve-logs") if program == "scheduler" else (program,)
                command = ["setpriv", "--pdeathsig=TERM", *airflow, *words]
                programs[program] = ended.enter_context(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log)
                )
                ended.callback(programs[program].terminate)
        database = create_engine(database_url(settings, name))
        ended.callback(database.dispose)
        yield IdleAirflow(files=files, programs=programs, database=database)


def _drop(server: Engine, name: str) -> None:
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def tree_s(pid: int) -> float:
    """Seconds of processor time of a process, of those below it, and of those among them that have ended."""
    children: dict[int, list[int]] = {}
    ticks: Counter[int] = Counter()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        found = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(found)
        ticks[found] = sum(map(int, fields[11:15]))  # its own in user and system mode, and of ended children
    asked, total = [pid], 0
    while asked:
        one = asked.pop()
        total += ticks[one]
        asked += children.get(one, [])
    return total / os.sysconf("SC_CLK_TCK")


def measure(settings: Settings, scratch: Path, minutes: float) -> dict[int, dict[str, float]]:
    """Seconds of processor time in a minute, by program, for each number of model files. Raises RuntimeError if a run began."""
    with ExitStack() as running:
        airflows = [running.enter_context(idle_airflow(settings, scratch, files)) for files in FLEETS]
        for airflow in airflows:
            airflow.wait_known()
        time.sleep(SETTLE_S)
        before = {airflow.files: airflow.processor_s() for airflow in airflows}
        time.sleep(minutes * 60)
        after = {airflow.files: airflow.processor_s() for airflow in airflows}
        if any(airflow.count("SELECT count(*) FROM dag_run") for airflow in airflows):
            raise RuntimeError("a run was due: these Airflows were not idle")
    return {
        files: {name: (after[files][name] - seconds) / minutes for name, seconds in programs.items()}
        for files, programs in before.items()
    }


def render(measured: Mapping[int, Mapping[str, float]], minutes: float, where: str) -> str:
    """The table."""
    lines = [
        f"Seconds of processor time in a minute, over {minutes:g} minutes, all at the same time, on {where}.",
        "",
        "| model files | DAGs | scheduler | DAG processor |",
        "| ---: | ---: | ---: | ---: |",
        *(
            f"| {files} | {KINDS * files} | {' | '.join(f'{programs[name]:.1f}' for name in PROGRAMS)} |"
            for files, programs in measured.items()
        ),
    ]
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-idle", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--short", action="store_true", help="print the table, and leave docs/benchmarks.md as it is")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="slipway-idle-") as scratch:
        table = render(measure(settings_here(), Path(scratch), asked.minutes), asked.minutes, machine())
    if asked.short:
        sys.stdout.write(f"{table}\n")
    else:
        PAGE.write_text(place(PAGE.read_text(), table, BEGIN, END))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
