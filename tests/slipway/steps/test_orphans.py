import json
from dataclasses import replace

import pytest

from slipway.facts import ObjectRef
from slipway.records.history import History
from slipway.records.record import new_record, record_with_preview, utc_now, write_record
from slipway.steps.orphans import find_orphans

PREVIEW = [
    ObjectRef(api_version="v1", kind="Service", name="tfs-server-preview", namespace="shop"),
    ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server-preview", namespace="shop"),
]


def test_preview_is_an_orphan_if_its_model_file_is_gone(store, release, http_server, connected):
    """No run of that model will delete the preview that a killed run left: the line names it."""
    gone = replace(release, model="gone", installation="here")
    write_record(store, record_with_preview(new_record(gone, now=utc_now()), objects=PREVIEW))
    connected(http_server((200, json.dumps({"metadata": {"labels": {"slipway/model": "gone"}}}))))
    [line] = find_orphans(replace(release, installation="here"), History(()))
    assert line == (
        "deployment/tfs-server-preview in shop (connection kubernetes_default) of model gone is an orphan: "
        "include/served/gone.yaml is gone. Next: kubectl -n shop delete deployment/tfs-server-preview service/tfs-server-preview"
    )


@pytest.fixture
def live(store, record_of, http_server, connected):
    """Records of a model without a file here, by this Airflow, another, or an earlier Slipway; its Deployment is live."""

    def by(*installations, **changes):
        for minutes, installation in enumerate(installations):
            record = record_of(f"r{minutes}", "live", minutes, model="gone", installation=installation, **changes)
            write_record(store, record)
        connected(http_server((200, json.dumps({"metadata": {"labels": {"slipway/model": "gone"}}}))))

    return by


WHERE = "deployment/tfs-server in shop (connection kubernetes_default) of model gone is an orphan: include/served/gone.yaml is gone"
WHOSE = {
    "this Airflow's": (["here"], f"{WHERE}. Next: kubectl "),
    "another's that shares the store": (["there"], None),
    "this one's, after another's": (["there", "here"], f"{WHERE}. Next: kubectl "),
    "another's now": (["here", "there"], None),
    "an earlier Slipway's": ([None], f"{WHERE}, unless another Airflow that shares this store serves it. Next: kubectl "),
}  # fmt: skip


@pytest.mark.parametrize(("installations", "begin"), WHOSE.values(), ids=WHOSE)
def test_what_another_airflow_serves_is_no_orphan(live, release, installations, begin):
    """Airflows that share a store have their own model files: each reports only what its own runs deployed last."""
    live(*installations)
    lines = find_orphans(replace(release, installation="here"), History(()))
    assert [line[: len(begin or "")] for line in lines] == ([begin] if begin else [])


def test_the_same_model_elsewhere_is_no_orphan_if_it_is_another_airflows(live, release, record_of):
    """A model that both serve, each in its own namespace, has not moved."""
    live()
    there = replace(release.target, namespace="theirs")
    for installation, lines in (("here", 1), ("there", 0)):
        record = record_of("r0", "live", model="gone", installation=installation, target=there)
        found = find_orphans(replace(release, model="gone", installation="here"), History((record,)))
        assert len(found) == lines
