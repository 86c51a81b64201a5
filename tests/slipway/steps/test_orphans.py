import json
from dataclasses import replace

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
    gone = replace(release, model="gone")
    write_record(store, record_with_preview(new_record(gone, now=utc_now()), objects=PREVIEW))
    connected(http_server((200, json.dumps({"metadata": {"labels": {"slipway/model": "gone"}}}))))
    [line] = find_orphans(release, History(()))
    assert line == (
        "deployment/tfs-server-preview in shop (connection kubernetes_default) of model gone is an orphan: "
        "include/served/gone.yaml is gone. Next: kubectl -n shop delete deployment/tfs-server-preview service/tfs-server-preview"
    )
