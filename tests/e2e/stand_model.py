"""A model file of a test in the stand's Airflow, for the length of a `with` block."""

import json
import shutil
import urllib.error
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import yaml
from dag_run import until
from fixtures.stand import parse_again
from trial_project import PROJECT, remove_images, trial_file


@contextmanager
def stand_model(model, stand, kubectl, engine, airflow_api, **fields):
    """A model with a preview: its `dag`, its `records()`, oldest first, and `write(**changes)`, which changes its file."""
    path, dag = PROJECT / "include" / "served" / f"{model}.yaml", f"refresh_{model.replace('-', '_')}"
    own = {"target__deployment": f"tfs-{model}", "target__strategy": "preview", **fields}
    store = Path(stand["store"].removeprefix("file://"))
    kept = store / "records" / model
    before = set(kept.glob("*.json"))

    def write(**changes):
        path.write_text(yaml.safe_dump(trial_file(**{**own, **changes})))
        parse_again(airflow_api)

    def knows():
        try:
            return not airflow_api(f"/dags/{dag}/details")["is_stale"]  # the file of an earlier test may be gone
        except urllib.error.HTTPError:
            return None

    def records():
        new = [json.loads(path.read_text()) for path in set(kept.glob("*.json")) - before]
        return sorted(new, key=lambda record: record["opened"])

    write()
    try:
        until(knows, f"Airflow knows {dag}")
        yield SimpleNamespace(model=model, dag=dag, write=write, records=records)
    finally:
        path.unlink()
        kubectl("delete", "deployment,service,hpa,pdb,configmap,lease", "-l", f"slipway/model={model}", "--wait=false")
        remove_images(engine, model)
        for part in ("records", "order"):  # a later test's first release of this model is a first one again
            shutil.rmtree(store / part / model, ignore_errors=True)
