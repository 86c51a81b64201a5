"""`refresh`: start one run of a model's DAG through Airflow's API and follow it until it ends."""

import json
import re
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.commands.status import read_status
from local.errors import StandError
from local.progress import say
from local.settings import Settings

PARSED_S = 900  # the DAG processor finds a new file within seconds; on a busy machine it takes longer
POLL_S = 1
USUAL_TASKS, USUAL_RUNS = 200, 5  # how many instances are read, and how many of each task count
ANSWER_S = 300
LOG_LINES = 12
ONNX = re.compile(r"^[^#\n]*\bruntime:\s*onnxruntime\b", re.MULTILINE)  # in a model file, not in a comment
ENDED = frozenset({"success", "failed"})
INVALID_PARAM = re.compile(
    r"Invalid input for param (?P<name>\w+): (?P<words>.*)"
)  # the schema follows on further lines
NOT_STARTED = frozenset({None, "none"})  # states of a task that Airflow has not queued yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Airflow's REST API, with a token for its user."""

    url: str
    token: str = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the response. Raises StandError with Airflow's message if it refuses."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)  # noqa: S310  # always the stand's http URL
        request.add_header("Accept", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as response:  # noqa: S310  # as above
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as refused:
            answer = refused.read().decode(errors="replace")
            raise ApiRefused(explain(f"{method} {path}: {refused.code}", answer), refused.code) from refused
        except (OSError, ValueError) as broken:
            raise StandError(f"Airflow {self.url}: {broken}. Next: python3 -m local doctor") from broken


def explain(what: str, answer: str) -> str:
    """Airflow's refusal in one line; for a Param its name, its value and what is allowed."""
    try:
        detail = json.loads(answer)["detail"]
    except (ValueError, LookupError, TypeError):
        detail = answer
    param = INVALID_PARAM.match(str(detail))
    if param:
        return f"Param {param['name']}: {param['words']}. Next: correct --param {param['name']}=…, or omit it"
    return f"Airflow: {what} {' '.join(str(detail).split())[:500]}"


class ApiRefused(StandError):
    """Airflow refused a request."""

    def __init__(self, message: str, code: int) -> None:
        """Keep the HTTP status: the caller waits while a DAG is not found."""
        super().__init__(message)
        self.code = code


def log_in(status: Mapping[str, Any]) -> Api:
    """Airflow's API with a token of the stand's user."""
    airflow = status["airflow"]
    credentials = {"username": airflow["user"], "password": Path(airflow["password_file"]).read_text()}
    answer = Api(url=airflow["url"]).call("POST", "/auth/token", credentials)
    return Api(url=airflow["url"], token=answer["access_token"])


def dag_id(model: str) -> str:
    """The id that `slipway.names` gives a model's DAG."""
    return f"refresh_{model.replace('-', '_')}"


def parse_params(words: Sequence[str], *, force: bool) -> dict[str, Any]:
    """The run's conf from `KEY=VALUE` words. A value that is JSON is read as JSON, any other is a string."""
    params: dict[str, Any] = {"force": True} if force else {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise StandError(f"--param {word}: not KEY=VALUE. Next: write it as in --param min_confidence=0.9")
        params[key] = _value(value)
    return params


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def refresh(settings: Settings, model: str, *, force: bool, params: Sequence[str]) -> int:
    """Run the model's DAG and follow it. Returns 0 only if the run succeeded."""
    status = read_status(settings)
    conf = parse_params(params, force=force)
    file = settings.checkout / "include" / "served" / f"{model}.yaml"
    if not file.exists():
        raise StandError(f"model {model}: no file include/served/{model}.yaml. Next: name one of {_models(settings)}")
    require_server(model, file.read_text(), status)
    api, dag = log_in(status), dag_id(model)
    _wait_known(api, dag)
    api.call("PATCH", f"/api/v2/dags/{dag}?update_mask=is_paused", {"is_paused": False})
    run = api.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
    where = f"{status['airflow']['url']}/dags/{dag}/runs/{run['dag_run_id']}"
    say(f"{dag} {run['dag_run_id']}\n  {where}")
    try:
        state = _follow(api, dag, run["dag_run_id"], _usual_times(api, dag))
    except KeyboardInterrupt:
        say(
            f"\nthe run continues, but is no longer followed. Next: {where}, or {settings.home}/airflow.sh tasks states-for-dag-run {dag} {run['dag_run_id']}"
        )
        raise
    return 0 if state == "success" else 1


def require_server(model: str, text: str, status: Mapping[str, Any]) -> None:
    """Raise StandError if the model file is for ONNX Runtime, and the stand has not prepared it."""
    if ONNX.search(text) and not status.get("onnx_serving_image"):
        raise StandError(
            f"model {model}: the stand has no server of ONNX Runtime yet. Next: python3 -m local up --onnx"
        )


def _models(settings: Settings) -> str:
    return (
        ", ".join(sorted(path.stem for path in (settings.checkout / "include" / "served").glob("*.yaml")))
        or "(none yet)"
    )


def _wait_known(api: Api, dag: str) -> None:
    """Wait until the DAG processor has parsed the DAG. Raises StandError with its import error if there is one."""
    end_s = time.monotonic() + PARSED_S
    while True:
        try:
            known = api.call("GET", f"/api/v2/dags/{dag}")
        except ApiRefused as refused:
            if refused.code != 404:  # noqa: PLR2004  # not found: not parsed yet
                raise
            known = None
        if known and not known["is_stale"] and not known["has_import_errors"]:
            return
        errors = api.call("GET", "/api/v2/importErrors")["import_errors"]
        if time.monotonic() > end_s or (errors and known):
            raise StandError(f"{dag}: {_why_unknown(errors)}")
        time.sleep(POLL_S)


def _why_unknown(errors: Sequence[Mapping[str, Any]]) -> str:
    if errors:
        return f"{errors[0]['filename']} cannot be imported:\n{errors[0]['stack_trace']}"
    return f"unknown to Airflow after {PARSED_S} s. Next: python3 -m local doctor"


def _usual_times(api: Api, dag: str) -> dict[str, float]:
    """How many seconds each task takes, by its name: the medians of its last successes."""
    path = f"/api/v2/dags/{dag}/dagRuns/~/taskInstances?state=success&order_by=-start_date&limit={USUAL_TASKS}"
    return median_durations(api.call("GET", path)["task_instances"])


def median_durations(tasks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median duration of the first few instances of each task, in seconds."""
    seen: dict[str, list[float]] = {}
    for task in tasks:
        if task.get("duration") is not None and len(seen.setdefault(_task_name(task), [])) < USUAL_RUNS:
            seen[_task_name(task)].append(float(task["duration"]))
    return {name: statistics.median(durations) for name, durations in seen.items() if durations}


def _follow(api: Api, dag: str, run: str, usual_s: Mapping[str, float]) -> str:
    """Print each change of a task's state until the run ends, and how long the task usually takes. Returns the run's state."""
    began_s = time.monotonic()
    seen: dict[str, Any] = {}
    while True:
        state = str(api.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"])
        tasks = api.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances?limit=1000")["task_instances"]
        now = {_task_name(task): task["state"] for task in tasks}
        for name, before, after in plan_changes(seen, now):
            say(
                f"  {time.monotonic() - began_s:6.1f} s  {name:<24} {after}"
                + (" (again)" if before == "up_for_retry" else "")
                + (f", usually {usual_s[name]:.0f} s" if after == "running" and name in usual_s else "")
            )
        for task in tasks:
            if task["state"] in {"failed", "up_for_retry"} and seen.get(_task_name(task)) != task["state"]:
                say(_failure(api, dag, run, task))
        seen = now
        if state in ENDED:
            say(f"  {time.monotonic() - began_s:6.1f} s  the run: {state}")
            return state
        time.sleep(POLL_S)


def plan_changes(seen: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Each task whose state changed: its name, the old state and the new state."""
    return [
        (name, seen.get(name), state)
        for name, state in now.items()
        if state not in NOT_STARTED and state != seen.get(name)
    ]


def _task_name(task: Mapping[str, Any]) -> str:
    index = task.get("map_index", -1)
    return str(task["task_id"]) if index in {-1, None} else f"{task['task_id']}[{index}]"


def _failure(api: Api, dag: str, run: str, task: Mapping[str, Any]) -> str:
    """The last relevant lines of a failed task's log, indented."""
    number, index = max(int(task["try_number"]), 1), task.get("map_index", -1)
    path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task['task_id']}/logs/{number}?map_index={index}&full_content=true"
    try:
        lines = render_log(api.call("GET", path)["content"])
    except StandError as unread:
        lines = [str(unread)]
    return "\n".join(f"      {line}" for line in lines)


def render_log(content: Sequence[Any]) -> list[str]:
    """The errors in a task's structured log, with the messages of exceptions; without an error the last lines."""
    events = [event for event in content if isinstance(event, dict)]
    errors = [event for event in events if str(event.get("level", "")).lower() in {"error", "critical"}]
    chosen = errors or [event for event in events if "::group::" not in str(event.get("event", ""))]
    lines = [line for event in chosen for line in _event_lines(event)]
    return lines[-LOG_LINES:]


def _event_lines(event: Mapping[str, Any]) -> list[str]:
    details = event.get("error_detail") or []
    causes = [
        f"{cause.get('exc_type', '')}: {cause.get('exc_value', '')}" for cause in details if isinstance(cause, dict)
    ]
    return [*str(event.get("event", "")).splitlines(), *[line for cause in causes for line in cause.splitlines()]]
