"""For all tests: an Airflow home of their own, set before anything imports Airflow, and the fixtures in tests/fixtures/."""

import atexit
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, configuration, settings
from hypothesis.internal.conjecture import providers

from local.google_project import read_google_project

PROJECT = Path(__file__).parents[1]

home = tempfile.mkdtemp(prefix="slipway-tests-")
atexit.register(shutil.rmtree, home, ignore_errors=True)

os.environ["AIRFLOW_HOME"] = home
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(PROJECT / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(PROJECT / "plugins")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# The Hub is unreachable unless a test uses the fixture `hub`: the client reads these once, when it is imported.
with socket.create_server(("127.0.0.1", 0)) as free:
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{free.getsockname()[1]}"
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = (
    "false"  # would ask Google over gRPC, which the emulator does not support
)
os.environ["HF_HOME"] = f"{home}/huggingface"
os.environ.pop("HF_TOKEN", None)
os.environ["PATH"] = (
    f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # kubectl is a package of the environment
)

# Property-based tests: the same inputs in each run, a few seconds for each file, nothing kept on the disk.
# Without this, Hypothesis also draws constants of the modules that happen to be imported, which are others in each process.
providers.is_local_module_file = lambda _: False
configuration.set_hypothesis_home_dir(f"{home}/hypothesis")
settings.register_profile(
    "slipway",
    derandomize=True,
    database=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure may take minutes
    deadline=None,  # a busy machine is no failure: tests/hostile.py limits processor time
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile("slipway")

pytest_plugins = [
    "fixtures.api_server",
    "fixtures.bucket",
    "fixtures.exporter",
    "fixtures.exports",
    "fixtures.hub",
    "fixtures.metrics",
    "fixtures.overlay",
    "fixtures.second_checkout",
    "fixtures.servers",
    "fixtures.users_folder",
    "fixtures.stand",
    "fixtures.stand_google",
    "fixtures.task_context",
]


def pytest_collection_modifyitems(config, items):
    """Run the tests of the second checkout first; with a real Google project, deselect those that control the emulator."""
    items.sort(key=lambda item: "second" not in item.fixturenames)  # its Airflow stops with the last of them
    if read_google_project() is None:
        return
    controlling = [item for item in items if {"google", "emulator"} & set(item.fixturenames)]
    config.hook.pytest_deselected(items=controlling)
    items[:] = [item for item in items if item not in controlling]
