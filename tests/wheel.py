"""Builds the wheel of this checkout, and says what Airflow finds in an environment that has it."""

import json
import os
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1]
DAG_FILE = "from slipway.dags import *  # the only line that a user's dags folder needs: Airflow finds its DAGs here\n"

# Runs where the wheel is installed.
PROBE = """
import importlib.metadata, json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.plugins_manager import get_import_errors
from airflow.providers_manager import ProvidersManager
import slipway
from slipway.model.exporter import FETCHER
from slipway.model.served import overlay_names
from slipway.runtimes import RUNTIMES
from slipway.serving.load_program import LOADER

bag = DagBag(dag_folder=sys.argv[1])
providers = ProvidersManager()
print(json.dumps({
    "package": slipway.__file__,
    "errors": {**bag.import_errors, **get_import_errors()},
    "tasks": {name: sorted(dag.task_ids) for name, dag in bag.dags.items()},
    "files": sorted({dag.fileloc for dag in bag.dags.values()}),
    "plugins": [plugin.plugin_class for plugin in providers.plugins if plugin.provider_name == "slipway"],
    "links": [name for name in providers.extra_links_class_names if name.startswith("slipway")],
    "connections": [hook.hook_name for name, hook in providers.hooks.items() if name == "huggingface"],
    "overlays": overlay_names(),
    "programs": [path.is_file() for path in (FETCHER, LOADER, *(runtime.exporter for runtime in RUNTIMES.values()))],
    "versions": {name: importlib.metadata.version(name) for name in ("apache-airflow", "apache-airflow-providers-google")},
}))
"""

RENDER = """
import json, sys
from slipway.facts import from_dict
from slipway.kubernetes.kustomize import render_manifests
from slipway.release import Release
release = from_dict(Release, json.load(sys.stdin))
print(json.dumps(render_manifests(release)))
"""


def build_wheel(python, folder):
    """The wheel, built with the hatchling of this Python's environment."""
    build = [python, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True, timeout=600)
    [wheel] = folder.glob("*.whl")
    return wheel


def ask(python, program, folder, *arguments, given="", **environment):
    """The JSON that a program prints in its last line, run in an Airflow home of its own and without this checkout."""
    done = subprocess.run(
        [python, "-c", program, *arguments],
        input=given,
        env={
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **environment,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
