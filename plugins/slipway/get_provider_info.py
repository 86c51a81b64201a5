"""What an installed Slipway tells Airflow about itself (entry point `apache_airflow_provider`)."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Its connection type, its plugin and its settings. It imports nothing: Airflow calls it in every process."""
    return {
        "package-name": "slipway",
        "name": "Slipway",
        "description": "Takes a 🤗 vision model from a new revision to a serving deployment on Kubernetes that has answered correctly.",
        "integrations": [{"integration-name": "Slipway", "external-doc-url": "", "tags": ["service"]}],
        "connection-types": [
            {
                "connection-type": "huggingface",
                "hook-class-name": "slipway.dag.hub_hook.HubHook",
                "hook-name": "Hugging Face Hub",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port", "extra"],
                    "relabeling": {"password": "Token", "host": "Hub"},
                    "placeholders": {"password": "hf_…", "host": "empty, or the host of HF_ENDPOINT"},
                },
            }
        ],
        "extra-links": ["slipway.dag.links.ServedModelLink"],
        "plugins": [{"name": "slipway", "plugin-class": "slipway.plugin.SlipwayPlugin"}],
        "config": {
            "slipway": {
                "description": "Slipway's settings. Everything else is an Airflow Variable: see docs/model-file.md.",
                "options": {
                    "folder": {
                        "description": (
                            "The folder with `served` (model files) and, if you have overlays of your own, `manifests/overlays`.\n"
                            "A relative path is looked for in the DAG bundle, then in AIRFLOW_HOME. Empty: `include`."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/opt/airflow/dags/repo/slipway",
                        "default": "",
                    }
                },
            }
        },
    }
