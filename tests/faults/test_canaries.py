"""Canaries in connections, Variables and a URL: after a good, a bad and a killed run none is anywhere but where it was planted."""

import json
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from canaries import Canaries, all_processes

from slipway.image.engine import throwaway_container

pytestmark = [pytest.mark.stand, pytest.mark.slow, pytest.mark.alongside]

OURS = ("/include/model/", "kubectl", "kustomize", "docker")  # in the arguments of the programs that tasks start
LOOK_S = 0.05


@pytest.fixture(scope="module")
def canaries():
    """The canaries."""
    return Canaries()


@pytest.fixture(scope="module")
def harness(make_harness, canaries):
    """A harness whose Airflow has a canary in each connection and Variable, and in one that no task reads."""
    harness = make_harness("faults-canaries")
    for name, value in list(harness.environment.items()):
        if name.startswith("AIRFLOW_CONN_"):
            connection = json.loads(value)
            extra = connection.get("extra") or {}
            connection["extra"] = {
                **(json.loads(extra) if isinstance(extra, str) else extra),
                "note": canaries.plant(f"{name}: extra"),
            }
            connection.setdefault("password", canaries.plant(f"{name}: password"))
            harness.environment[name] = json.dumps(connection)
    harness.environment |= {
        "AIRFLOW_CONN_UNRELATED": json.dumps(
            {"conn_type": "postgres", "password": canaries.plant("another connection")}
        ),
        "AIRFLOW_VAR_UNRELATED": canaries.plant("another Variable"),
        "CANARY": canaries.plant("the worker's environment"),
    }
    yield harness
    harness.end()


@contextmanager
def watched(canaries):
    """Looks at the arguments and the environment of each program that tasks start, for the block; yields what it finds."""
    found, seen, ended = [], set(), threading.Event()

    def look():
        while not ended.wait(LOOK_S):
            for pid in all_processes():
                try:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if any(name in words for name in OURS) and not {"pytest", "warm.py"} & {
                    Path(word).name for word in words.split("\0")
                }:
                    seen.add(words)
                    found.extend(canaries.found_in_processes([pid]))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found, seen
    finally:
        ended.set()
        looking.join()


def left(harness, canaries, *logs):
    """Where a canary is: what the run printed, Airflow's files and database, the store, images, the registry, the cluster."""
    places = {"log": canaries.found_in("\n".join(logs))}
    places["files"] = canaries.found_in_files(*(harness.root / name for name in ("airflow", "store", "tmp", "project")))
    places["database"] = canaries.found_in((harness.root / "airflow.db").read_bytes())
    for image in harness.engine.images(filters={"label": f"org.opencontainers.image.title={harness.model}"}):
        places[f"image {image['Id']}"] = canaries.found_in(harness.engine.inspect_image(image["Id"]))
        with throwaway_container(harness.engine, f"slipway-canaries-{harness.model}", image=image["Id"]) as container:
            packed, _ = harness.engine.get_archive(container, f"/models/{harness.model}")
            places[f"model in {image['Id']}"] = canaries.found_in(b"".join(packed))
    objects = harness.kubectl("get", "deployment,service,hpa,pdb,configmap,lease,event,pod", "-o", "json")
    places["cluster"] = canaries.found_in(objects)
    return {place: found for place, found in places.items() if found}


def test_no_canary_is_left(harness, canaries):
    """A good run, one whose release is bad, and one whose process is killed while it exports: each secret stays where it was planted."""
    with watched(canaries) as (found, seen):
        good = harness.run()
        harness.content("b")
        with harness.container(args=["--rest_api_port=none"]):
            bad = harness.run(green=False)
        harness.content("c")
        with harness.in_background() as background:
            background.logs("exporter: sandbox")
            os.killpg(background.process.pid, signal.SIGKILL)
            background.process.wait()
    assert bad.record()["outcome"] == "failed"
    assert {name for name in ("export.py", "kubectl") if any(name in words for words in seen)} == {
        "export.py",
        "kubectl",
    }
    assert found == []
    assert left(harness, canaries, good.log, bad.log, background.log.read_text()) == {}
