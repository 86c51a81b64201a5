"""The settings of a run, from Airflow's Variables and connections and from its form."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from slipway.connections import check_bucket_connection
from slipway.errors import InputRefused
from slipway.kubernetes.client import namespace_of_connection
from slipway.kubernetes.policy import OBJECT_NAME, Allowed
from slipway.model.field_types import IMAGE
from slipway.model.target_settings import TargetSettings
from slipway.names import SHORT
from slipway.runtimes import RUNTIMES, RuntimeName
from slipway.target import GkeCluster, Target
from slipway.urls import has_login

log = logging.getLogger(__name__)
INSTALLATION = "slipway_installation"  # the Variable
LOOK = "slipway_look_s"  # the Variable
KIND_NAME = re.compile(r"[A-Z][A-Za-z0-9]*(\.[a-z0-9-]+)*")
INSTALLATION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of this Airflow, from its Variables."""

    store: str  # slipway_store: URI of the artifact store
    registry: str | None  # slipway_registry: prefix of image repositories
    registry_conn_id: str | None = None  # slipway_registry_conn_id: the connection that logs in there
    namespace: str | None = None  # slipway_namespace: for GKE targets whose model files name none
    # slipway_serving_image, slipway_onnx_serving_image: in place of a runtime's published image, such as a mirror or a stand-in
    serving_images: Mapping[RuntimeName, str] = field(default_factory=dict)
    # slipway_exporter_image, slipway_onnx_exporter_image: for model files with export.run_in: pod that name none
    exporter_images: Mapping[RuntimeName, str] = field(default_factory=dict)
    without_sandbox: str | None = None  # slipway_without_sandbox: export archives and HDF5 without a sandbox too
    overlay_kinds: str | None = None  # slipway_overlay_kinds: kinds that overlays may contain too
    overlay_service_accounts: str | None = None  # slipway_overlay_service_accounts: those that their pods may use


def read_settings() -> Settings:
    """The settings of this Airflow. Raises InputRefused naming the Variable that is missing or invalid."""
    from airflow.sdk import Variable

    store = Variable.get("slipway_store", default=None)
    if not store:
        raise InputRefused(
            "Variable slipway_store: not set. Next: set it to the artifact store's URI, such as gs://google_cloud_default@BUCKET/slipway"
        )
    if "://" not in store:
        raise InputRefused("Variable slipway_store: is not a URI. Next: write a folder as file:///path")
    if has_login(store) or "?" in store:
        raise InputRefused(
            "Variable slipway_store: has a login or a query, which would be kept in every record. "
            "Next: name an Airflow connection, as gs://google_cloud_default@BUCKET/slipway"
        )
    check_bucket_connection(store)
    return Settings(
        store=store,
        registry=Variable.get("slipway_registry", default=None),
        registry_conn_id=Variable.get("slipway_registry_conn_id", default=None),
        namespace=Variable.get("slipway_namespace", default=None),
        without_sandbox=Variable.get("slipway_without_sandbox", default=None),
        overlay_kinds=Variable.get("slipway_overlay_kinds", default=None),
        overlay_service_accounts=Variable.get("slipway_overlay_service_accounts", default=None),
        serving_images=_images({name: runtime.image_variable for name, runtime in RUNTIMES.items()}),
        exporter_images=_images({name: runtime.exporter_image_variable for name, runtime in RUNTIMES.items()}),
    )


def _images(variables: Mapping[RuntimeName, str]) -> dict[RuntimeName, str]:
    """The images that these Variables name, by runtime, without those that are not set. Raises InputRefused."""
    from airflow.sdk import Variable

    found: dict[RuntimeName, str] = {}
    for runtime, variable in variables.items():
        image = Variable.get(variable, default=None)
        if image and not IMAGE.fullmatch(image):
            raise InputRefused(
                f"Variable {variable}: is not an image. Next: write HOST[:PORT]/PATH:TAG, without https:// and without a login"
            )
        if image:
            found[runtime] = str(image)
    return found


def allowed_in_overlays(settings: Settings) -> Allowed:
    """What the Variables add to the rules of overlays. Raises InputRefused naming the Variable that is invalid."""
    return Allowed(
        kinds=_names("slipway_overlay_kinds", settings.overlay_kinds, KIND_NAME, "Kind.group, or Kind of the core API"),
        service_accounts=_names(
            "slipway_overlay_service_accounts",
            settings.overlay_service_accounts,
            OBJECT_NAME,
            "names of ServiceAccounts",
        ),
    )


def _names(variable: str, text: str | None, form: re.Pattern[str], wanted: str) -> frozenset[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if not form.fullmatch(name):
            raise InputRefused(f"Variable {variable}: {name!r} is not valid. Next: write {wanted}, separated by commas")
    return frozenset(names)


def allowed_without_sandbox(settings: Settings) -> bool:
    """Whether the Variable allows archives and HDF5 without a sandbox. Raises InputRefused if it is neither true nor false."""
    value = (settings.without_sandbox or "false").lower()
    if value not in {"true", "false"}:
        raise InputRefused(
            f"Variable slipway_without_sandbox: {settings.without_sandbox!r} is neither true nor false. Next: correct it"
        )
    return value == "true"


def read_look_limit_s() -> float:
    """How many seconds a wait may poll in its worker before it defers: Variable slipway_look_s; no limit if it is invalid.

    It only tunes: a mistake in it must not end a run, least of all a rollback.
    """
    from airflow.sdk import Variable

    value = Variable.get(LOOK, default=None)
    if value is None:
        return math.inf
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        log.warning("Variable %s: %r is not a number of seconds. Next: write 0 or more, or delete it", LOOK, value)
        return math.inf
    return seconds


def find_installation() -> str | None:
    """The name of this Airflow among those that share a target, from its Variable; None if it is not set. Raises InputRefused."""
    from airflow.sdk import Variable

    name = str(Variable.get(INSTALLATION, default=None) or "")
    if name and not INSTALLATION_NAME.fullmatch(name):
        raise InputRefused(
            f"Variable {INSTALLATION}: {name!r} is not a valid name. Next: use letters, digits, '.', '_' and '-'"
        )
    return name or None


def ensure_installation() -> str:
    """The name of this Airflow among those that share a target, from its Variable. An unset Variable is set to a new name.

    All workers read it from Airflow's own database, which no other installation reads. Two runs that set it at the same
    moment use different names, as two installations would: a run keeps the name with which it first acquired a Lease.
    Raises InputRefused.
    """
    from airflow.sdk import Variable

    if found := find_installation():
        return found
    name = uuid4().hex[:SHORT]
    Variable.set(INSTALLATION, name, description="Slipway: names this Airflow where several share a target")
    log.info("Variable %s: set to %s", INSTALLATION, name)
    return name


def resolve_target(asked: TargetSettings, settings: Settings) -> Target:
    """Where the model is served. Raises InputRefused if a connection lacks what the model file leaves to it."""
    if asked.gke is None:
        return Target(conn_id=asked.conn_id, namespace=asked.namespace or namespace_of_connection(asked.conn_id))
    gke = asked.gke
    cluster = GkeCluster(
        project=gke.project or _connected_project(gke.conn_id),
        location=gke.location,
        name=gke.cluster,
        endpoint=gke.endpoint,
    )
    namespace = asked.namespace or settings.namespace or "default"
    return Target(kind="gke", conn_id=gke.conn_id, namespace=namespace, gke=cluster)


def _connected_project(conn_id: str) -> str:
    from slipway.google import project_of_connection

    return project_of_connection(conn_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadParams:
    """What a person entered in the form of a load test."""

    changes: Mapping[str, object] = field(default_factory=dict)  # of the model file's `load_test`
    rest: str | None = None  # http(s)://HOST:PORT of another server; without both: the live release
    grpc: str | None = None  # its HOST:PORT

    @property
    def elsewhere(self) -> bool:
        """Whether another server is tested than the live release."""
        return self.rest is not None or self.grpc is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshParams:
    """What a person entered in the form; None means the model file's value."""

    revision: str | None = None
    overlay: str | None = None
    min_confidence: float | None = None  # 0..1
    force: bool = False
    plan_only: bool = False
    break_lease: bool = False
