"""The whole DAG on a GKE cluster that the run makes, through the scheduler.

Google is emulated, with a real registry and the stand's real Kubernetes; or all of it is Google's: docs/gke.md, against a
real project. Tests that set the emulator's state or read its calls use the fixture `google`.
"""

import base64
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import sqlalchemy

PROJECT = Path(__file__).parents[2]
MODEL, DAG = "digits-vit-gke", "refresh_digits_vit_gke"
CLUSTER = "projects/slipway-stand/locations/us-central1-a/clusters/tfs-cluster"
LIMIT_S = 3600
SLOW_S = 3600  # longer than the run: the test ends Google's operation once it has seen the image pushed
SEEN = 3  # samples that have to show the pushed image waiting for the cluster
ENDED = {"success", "failed", "upstream_failed"}

pytestmark = [pytest.mark.stand, pytest.mark.google]


@pytest.fixture(scope="module")
def made(request, gke, airflow_api):
    """A run without a cluster, in which Google needs until the image is pushed: its output, and its tasks' states once a second."""
    google = request.getfixturevalue("google") if gke["emulator"] else None
    if google:
        google("PUT", "/faults", {"operation_s": SLOW_S})
    samples, ended = [], threading.Event()
    watching = threading.Thread(target=sample, args=(airflow_api, samples, ended, google))
    watching.start()
    try:
        done = refresh("--force")
    finally:
        ended.set()
        watching.join()
    assert done.returncode == 0, done.stdout + done.stderr
    for moment, states in samples:
        print(f"{moment:6.1f} s  {'  '.join(f'{task}={state}' for task, state in states.items())}")
    return {"samples": [states for _, states in samples], "output": done.stdout}


def refresh(*words):
    """`python3 -m local refresh`, as a person types it."""
    command = [sys.executable, "-m", "local", "refresh", MODEL, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, timeout=LIMIT_S)


def sample(airflow_api, samples, ended, google):
    """Add the states of the newest run's tasks once a second until `ended`; end the emulator's operation after the push."""
    began = time.monotonic()
    before = newest_run(airflow_api)
    pushed = 0
    while not ended.wait(1):
        run = newest_run(airflow_api)
        if run == before:
            continue
        with suppress(OSError):  # an API server that is slow to answer is asked again
            tasks = airflow_api(f"/dags/{DAG}/dagRuns/{run}/taskInstances")["task_instances"]
            states = {task["task_id"]: task["state"] for task in tasks if task["state"]}
            samples.append((time.monotonic() - began, states))
            pushed += states.get("push") in ENDED and states.get("create_cluster") == "deferred"
            if google and pushed == SEEN:
                google("POST", "/operations/end")


def newest_run(airflow_api):
    """The id of the DAG's newest run; None if there is none, or if Airflow does not know the DAG yet."""
    try:
        runs = airflow_api(f"/dags/{DAG}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    except OSError:
        return None
    return runs[0]["dag_run_id"] if runs else None


def reported(airflow_api):
    """The findings of the newest run's preflight; Airflow's API shows a tuple in its serialized form."""
    entry = f"/dags/{DAG}/dagRuns/{newest_run(airflow_api)}/taskInstances/preflight/xcomEntries/return_value"
    return airflow_api(f"{entry}?stringify=false")["value"]["findings"]["__data__"]


def test_the_run_is_green(made):
    """The run makes the cluster, and its gate passes."""
    assert "create_cluster           success" in made["output"]
    assert "the run: success" in made["output"]


def test_the_cluster_is_made_once(made, google):
    """The run asks Google for a cluster once, and deletes nothing."""
    state = google("GET", "/state")
    assert state["clusters"][CLUSTER]["status"] == "RUNNING"
    assert state["calls"]["CreateCluster"] == 1
    assert "DeleteCluster" not in state["calls"]
    assert state["calls"]["cloudresourcemanager.projects.testIamPermissions"] == 1


def test_google_was_asked_before_the_cluster_was_made(made, gke, airflow_api):
    """The preflight's report has project, APIs, permissions, quota and the price; nothing is missing."""
    report = reported(airflow_api)
    print("\n".join(f"{one['outcome']}: {one['said']}" for one in report))
    passed = [one["said"] for one in report if one["outcome"] == "ok"]
    project = gke.get("project") or "slipway-stand"
    for words in (f"project {project}: ACTIVE", "APIs enabled in", "permissions on project", "quota CPUS of region"):
        assert any(one.startswith(words) for one in passed)
    assert any("will be created: about $0.90 per hour" in one for one in passed)
    assert "missing" not in {one["outcome"] for one in report}


def test_record_has_the_run_that_made_the_cluster_and_its_price(made, stand, airflow_api):
    """The record says that this run made the cluster, and what the cluster costs per hour."""
    folder = Path(stand["store"].removeprefix("file://")) / "records" / MODEL
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    [record] = [one for one in records if one["run_id"] == newest_run(airflow_api)]
    assert "; created by this run, about $0.90 per hour" in record["verdicts"]["create_cluster"]["reason"]


def test_the_wait_for_google_holds_no_worker_slot(made):
    """The task stays deferred until Google is done, while export and build go on; nothing is applied before."""
    states = [states.get("create_cluster") for states in made["samples"]]
    print(dict(Counter(states)))
    first, last = states.index("deferred"), len(states) - states[::-1].index("deferred")
    assert set(states[first:last]) == {"deferred"}
    together = [s for s in made["samples"][first:last] if s.get("export") == "running"]
    waited = [s for s in made["samples"][first:last] if s.get("push") == "success"]
    assert together or waited
    assert all("apply" not in s for s in made["samples"][first:last])


def test_it_is_the_stands_cluster_that_serves(made, google, kubectl):
    """The Deployment is in the stand's Kubernetes, applied as the emulated service account."""
    deployment = json.loads(kubectl("get", f"deployment/{MODEL}", "-o", "json", "--show-managed-fields"))
    assert deployment["status"]["readyReplicas"] >= 1


def test_the_address_answers(made, airflow_api):
    """A request to the address that the run found gets the correct label."""
    url = xcom(airflow_api, "wait_for_address")
    image = base64.urlsafe_b64encode((PROJECT / "include/served/digits-vit/golden/three.png").read_bytes()).decode()
    asked = urllib.request.Request(f"{url}/v1/models/{MODEL}:predict", json.dumps({"instances": [image]}).encode())
    with urllib.request.urlopen(asked, timeout=300) as answer:
        assert json.load(answer)["predictions"][0]["label"] == "3"


def google_tokens(text):
    """The tokens in a text that Google, real or emulated, or the registry's token server has issued; Airflow's own do not count."""
    found = set(re.findall(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", text))
    issuers = {token: json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")).get("iss") for token in found}
    return {token for token, issuer in issuers.items() if not str(issuer).startswith("airflow")} | set(
        re.findall(r"ya29\.[\w-]{20,}", text)
    )


def text_of(path):
    """The text of a file; empty if another run has just deleted it."""
    with suppress(FileNotFoundError):
        return path.read_text()
    return ""


def test_no_token_is_left_anywhere(made, stand, surroundings_now, airflow_api, engine):
    """No token is in a log, the database with its XComs and rendered templates, the store with the record, or the image."""
    home = Path(stand["airflow"]["environment_file"]).parent
    pushed = xcom(airflow_api, "push")["reference"]
    left = {
        "logs": "".join(map(text_of, (home / "logs").rglob("*.log"))),
        "store": "".join(map(text_of, (home / "store").rglob("*.json"))),
        "database": dump(surroundings_now["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]),
        "image": json.dumps([engine.inspect_image(pushed), engine.history(pushed)]),
    }
    assert [place for place, text in left.items() if MODEL not in text] == [], "each is what the run left"
    assert {place: google_tokens(text) for place, text in left.items()} == {place: set() for place in left}


def xcom(airflow_api, task):
    """The result of a task of the newest run."""
    value = airflow_api(f"/dags/{DAG}/dagRuns/{newest_run(airflow_api)}/taskInstances/{task}/xcomEntries/return_value")[
        "value"
    ]
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


def dump(database):
    """Every row of a database."""
    with sqlalchemy.create_engine(database).connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        select = 'select row_to_json(t)::text from "{}" t'
        return "\n".join(row[0] for name in tables for row in connection.execute(sqlalchemy.text(select.format(name))))


def on_worker(script, *words, environment):
    """Run a script of this folder with the package and the stand's connections; the JSON that it prints."""
    command = [sys.executable, Path(__file__).with_name(script), *words]
    environment = {**environment, "PYTHONPATH": str(PROJECT / "plugins")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_push_and_apply_act_as_the_account_that_is_impersonated(made, google, stand, surroundings_now):
    """The key's own account may do neither: the registry refuses its push, and the cluster its Deployment."""
    itself = json.loads(surroundings_now["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"])
    assert itself["extra"].pop("impersonation_chain").startswith(stand["namespace"])
    environment = {**surroundings_now, "AIRFLOW_CONN_ITSELF": json.dumps(itself)}
    registry = surroundings_now["AIRFLOW_VAR_SLIPWAY_REGISTRY"].partition("/")[0]
    realm = re.search(r'realm="([^"]+)"', httpx.get(f"http://{registry}/v2/").headers["WWW-Authenticate"])[1]
    may = {}
    for name in ("google_cloud_default", "itself"):
        seen = on_worker("acts_as.py", name, stand["namespace"], environment=environment)
        push = {"scope": f"repository:{stand['namespace']}/{MODEL}:pull,push"}
        answer = httpx.get(realm, params=push, auth=("oauth2accesstoken", seen["token"]))
        may[name] = (answer.status_code, seen["may_apply"])
    assert may == {"google_cloud_default": (200, True), "itself": (403, False)}


@pytest.mark.alone
def test_a_client_outlives_its_token(google, surroundings_now):
    """An hour later the API server still accepts the client; without the provider's hook it refuses it."""
    google("PUT", f"/clusters/{CLUSTER}", {"status": "RUNNING"})
    deployer = json.loads(surroundings_now["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"])["extra"]["impersonation_chain"]
    try:
        seen = on_worker("long_lived.py", google.control, environment=surroundings_now)
    finally:
        google("PUT", "/faults", {})
    assert seen == {"first": deployer, "first_without": deployer, "later": deployer, "later_without": 401}


@pytest.fixture(scope="module")
def again(made):
    """The output of a second run with nothing to do."""
    done = refresh()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_second_cluster_is_made(again, google):
    """Both runs together ask Google for a cluster once."""
    assert google("GET", "/state")["calls"]["CreateCluster"] == 1


def test_a_second_run_finds_everything_done(again, airflow_api, surroundings_now):
    """If nothing changed and the release is healthy, the run checks the cluster and its rights, and makes, builds and applies nothing."""
    assert "create_cluster           skipped" in again
    rights = reported(airflow_api)[-1]
    assert (rights["outcome"], rights["said"].partition(": all ")[0]) == (
        "ok",
        f"rights in namespace {surroundings_now['AIRFLOW_VAR_SLIPWAY_NAMESPACE']}",
    )


def test_red_with_one_report_of_all_that_is_missing(made, google):
    """A disabled API and a missing permission are in one line, before anything is planned or made."""
    google("POST", "/reset")
    google("PUT", "/project", {"missing": ["container.clusters.create"], "disabled": ["compute.googleapis.com"]})
    done = refresh()
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if "PreflightFailed: " in line)
    assert "API compute.googleapis.com is not enabled in slipway-stand" in line
    assert "no permission container.clusters.create on project slipway-stand" in line
    state = google("GET", "/state")
    assert state["clusters"] == {}
    assert "CreateCluster" not in state["calls"]


@pytest.mark.slow
def test_red_with_googles_message_if_the_zone_has_no_machines_left(made, google):
    """A failed creation fails the run with Google's message; nothing is deleted."""
    google("POST", "/reset")
    google("PUT", "/faults", {"stockout": True, "operation_s": 1})
    done = refresh()
    assert done.returncode == 1
    assert "ClusterUnfit: " in done.stdout
    assert "GCE_STOCKOUT" in done.stdout
    state = google("GET", "/state")
    assert state["clusters"][CLUSTER]["status"] == "ERROR"
    assert "DeleteCluster" not in state["calls"]
