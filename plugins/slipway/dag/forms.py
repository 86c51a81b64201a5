"""The forms that start a run by hand: typed Params, and the functions that read them."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from airflow.sdk import Param

from slipway.errors import InputRefused
from slipway.load_plan import LoadPlan
from slipway.model.model_file import ModelFile
from slipway.model.served import overlay_names
from slipway.steps.settings import LoadParams, RefreshParams

GRPC_ADDRESS = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"
REST_ADDRESS = f"https?://{GRPC_ADDRESS}"
FROM_FILE = "as the model file says"


def refresh_form(file: ModelFile | None) -> dict[str, Param]:
    """The Params of a refresh DAG. Each has a valid default, so that the DAG may have a schedule."""
    revision = getattr(file.source, "revision", None) if file else None
    overlay = file.target.overlay if file else None
    return {
        "revision": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="Revision",
            description=f"A branch, tag or commit of a Hub model. Empty: {FROM_FILE} ({revision or 'its source has none'}).",
        ),
        "overlay": Param(
            None,
            type=["null", "string"],
            enum=[None, *overlay_names()],
            values_display={"null": FROM_FILE},
            title="Overlay",
            description=f"A folder of manifests/overlays. Empty: {FROM_FILE} ({overlay or 'the base only'}).",
        ),
        "min_confidence": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=1,
            title="Minimum confidence",
            description=f"For every golden case of this run, from 0 to 1. Empty: {FROM_FILE}.",
        ),
        "force": _check_box(
            "Force",
            "Export, build, smoke-test and push again, even if nothing changed.",
        ),
        "plan_only": _check_box(
            "Plan only",
            "Log what a run would do, with the API server's dry-run diff, and write nothing.",
        ),
        **_break_lease(),
    }


def rollback_form() -> dict[str, Param]:
    """The Params of a rollback DAG."""
    return {
        "release": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9a-f]{12}$",
            title="Release",
            description="The id of a release that was proven live; the log of the task choose lists them. Empty: the one before the live one.",
        ),
        **_break_lease(),
    }


def teardown_form() -> dict[str, Param]:
    """The Params of a teardown DAG."""
    return {
        "with_others": _check_box(
            "With others",
            "Delete the cluster even if something else runs in it, or may run in it, or if another model file names it.",
        ),
        **_break_lease(),
    }


def load_test_form(plan: LoadPlan, most_per_s: float) -> dict[str, Param]:
    """The Params of a load-test DAG. `most_per_s` is the largest rate that the model file allows."""
    return {
        "rates_per_s": Param(
            None,
            type=["null", "array"],
            items={"type": "number", "exclusiveMinimum": 0, "maximum": most_per_s},
            title="Rates",
            description=f"Requests a second, one step after another, at most {most_per_s:g}. Empty: {FROM_FILE} ({', '.join(f'{rate:g}' for rate in plan.rates_per_s)}).",
        ),
        "step_s": Param(
            None,
            type=["null", "integer"],
            minimum=5,
            maximum=900,
            title="Seconds",
            description=f"How long each step takes. Empty: {FROM_FILE} ({plan.step_s}).",
        ),
        "rest": Param(
            None,
            type=["null", "string"],
            pattern=f"^{REST_ADDRESS}$",
            title="REST address",
            description="http://HOST:PORT of another server of this model, which must give the live release's answers. Empty, as the gRPC address: the live release is tested.",
        ),
        "grpc": Param(
            None,
            type=["null", "string"],
            pattern=f"^{GRPC_ADDRESS}$",
            title="gRPC address",
            description="HOST:PORT of that other server. Empty: it is asked only over REST.",
        ),
    }


def read_load_test_form(params: dict[str, Any]) -> LoadParams:
    """What the form says instead of the model file. Raises InputRefused."""
    refuse_unknown_params(params, {"rates_per_s", "step_s", "rest", "grpc"})
    return LoadParams(
        changes={name: params[name] for name in ("rates_per_s", "step_s") if params.get(name) is not None},
        rest=_address(params, "rest", REST_ADDRESS, "http://HOST:PORT"),
        grpc=_address(params, "grpc", GRPC_ADDRESS, "HOST:PORT"),
    )


def sweep_form() -> dict[str, Param]:
    """The Params of a sweep DAG."""
    return _break_lease()


def read_sweep_form(params: dict[str, Any]) -> None:
    """Refuse what a sweep's form does not have. Raises InputRefused."""
    refuse_unknown_params(params, {"break_lease"})
    _switch(params, "break_lease")


def _break_lease() -> dict[str, Param]:
    """The Param of every run that writes to a target."""
    return {
        "break_lease": _check_box(
            "Break lease",
            "Take the target's Lease from the run that holds it. That run then writes nothing more and rolls nothing back. "
            "It acts once: a cleared run breaks no Lease.",
        )
    }


def _check_box(title: str, description: str) -> Param:
    """A check box, not ticked by default."""
    return Param(False, type="boolean", title=title, description=description)  # noqa: FBT003 - the default


def read_refresh_form(params: dict[str, Any]) -> RefreshParams:
    """The Params of this run. Raises InputRefused naming the Param and what is allowed."""
    refuse_unknown_params(params, {field.name for field in fields(RefreshParams)})
    revision, overlay = _text(params, "revision"), _text(params, "overlay")
    if overlay is not None and overlay not in overlay_names():
        raise InputRefused(
            f"Param overlay: {overlay!r} is not an overlay. Next: use one of {', '.join(overlay_names())}"
        )
    confidence = params.get("min_confidence")
    if confidence is not None and (
        isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1
    ):
        raise InputRefused(
            f"Param min_confidence: {confidence!r} is not a number from 0 to 1. Next: leave it empty, or enter 0.85, say"
        )
    return RefreshParams(
        revision=revision,
        overlay=overlay,
        min_confidence=confidence,
        force=_switch(params, "force"),
        plan_only=_switch(params, "plan_only"),
        break_lease=_switch(params, "break_lease"),
    )


def read_rollback_form(params: dict[str, Any]) -> str | None:
    """The release that a rollback's form names; None for the one before the live one. Raises InputRefused."""
    refuse_unknown_params(params, {"release", "break_lease"})
    _switch(params, "break_lease")
    return _text(params, "release")


def read_teardown_form(params: dict[str, Any]) -> bool:
    """Whether a teardown's form allows deleting the cluster with everything else in it. Raises InputRefused."""
    refuse_unknown_params(params, {"with_others", "break_lease"})
    _switch(params, "break_lease")
    return _switch(params, "with_others")


def refuse_unknown_params(params: dict[str, Any], known: set[str]) -> None:
    """Refuse a Param that the form does not have: Airflow accepts any name, and would silently ignore a misspelt one."""
    unknown = sorted(params.keys() - known)
    if unknown:
        raise InputRefused(f"Param {unknown[0]}: there is no such Param. Next: use one of {', '.join(sorted(known))}")


def _switch(params: dict[str, Any], name: str) -> bool:
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise InputRefused(f"Param {name}: {value!r} is neither true nor false. Next: enter true or false")
    return value


def _address(params: dict[str, Any], name: str, pattern: str, form: str) -> str | None:
    value = _text(params, name)
    if value is not None and not re.fullmatch(pattern, value):
        raise InputRefused(f"Param {name}: is not of the form {form}. Next: leave it empty, or enter it without a path")
    return value


def _text(params: dict[str, Any], name: str) -> str | None:
    value = params.get(name)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise InputRefused(f"Param {name}: {value!r} is not text. Next: leave it empty or enter a name")
    return value
