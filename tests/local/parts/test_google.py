"""Google as a part of the stand: the emulator, or a real project."""

import json
from dataclasses import replace

from local.parts import google
from local.settings import read_settings


def test_real_project_is_used_in_place_of_the_emulator(tmp_path):
    """If the environment names a project, `up --gke` emulates nothing and connects the stand's Airflow to the project."""
    named = {
        "SLIPWAY_GCP_PROJECT": "shop",
        "SLIPWAY_GCP_KEY": "/etc/key.json",
        "SLIPWAY_GCP_IMPERSONATE": "deployer@shop",
    }
    settings = replace(read_settings(named, tmp_path), state=tmp_path)
    google.folder(settings).mkdir(parents=True)
    assert (google.requested(settings), google.emulated(settings)) == (True, False)
    environment = settings.google.environment({"AIRFLOW_VAR_SLIPWAY_REGISTRY": "here"})
    extra = {"project": "shop", "key_path": "/etc/key.json", "impersonation_chain": "deployer@shop"}
    assert json.loads(environment["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"])["extra"] == extra
    assert environment["AIRFLOW_VAR_SLIPWAY_REGISTRY"] == "here"
