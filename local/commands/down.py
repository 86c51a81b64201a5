"""`down`: stop this checkout's parts, and the shared parts if no other checkout uses them."""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from local.builds.environments import environment_path
from local.errors import StandError
from local.parts import access, checkout, engine, leftovers, shared
from local.programs.locks import change_lock, command_lock, locked, locked_at_once, shared_lock
from local.programs.shell import run
from local.programs.supervision import shut_down
from local.progress import Note, say, step
from local.settings import Settings

PODS_GONE_S = 60


def bring_down(settings: Settings) -> None:
    """Stop everything of this checkout and, if it is the last one, everything of the stand."""
    if os.geteuid() != 0:
        raise StandError("the stand runs as root, so `down` needs root. Next: sudo -E python3 -m local down")
    began_s = time.monotonic()
    with locked(command_lock(settings)):
        with step("Airflow and database"):
            shut_down(checkout.supervisor(settings))
        with locked(change_lock(settings)):
            _remove_from_shared(settings)
            for folder in (settings.home_run, settings.home):
                shutil.rmtree(folder, ignore_errors=True)
            _stop_shared(settings)
    say(f"the stand is down after {time.monotonic() - began_s:.0f} s; the cache is kept in {settings.cache}")


def _stop_shared(settings: Settings) -> None:
    with locked_at_once(shared_lock(settings)) as free:
        if not free:
            say("  engine, registry and cluster keep running: another checkout uses them")
            return
        with step("shared parts") as note:
            shared.stop_shared(settings)
            shutil.rmtree(settings.shared, ignore_errors=True)
            left = leftovers.find_leftovers(settings)
            note("no leftovers" if not left else f"leftovers: {', '.join(left)}")
        for path in settings.run.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix != ".lock":  # another command may be waiting for the lock
                path.unlink()


def _remove_from_shared(settings: Settings) -> None:
    """Delete this checkout's namespace and images, if the cluster and the engine respond."""
    facts: dict[str, Any] = json.loads(settings.facts.read_text()) if settings.facts.exists() else {}
    if not facts:
        return
    with step("namespace") as note:
        _remove_namespace(settings, facts, note)
    with step("images") as note:
        note(
            f"{_remove_images(facts)} removed"
            if engine.engine_answers(facts["docker_host"])
            else "the engine does not respond"
        )


def _remove_namespace(settings: Settings, facts: Mapping[str, Any], note: Note) -> None:
    kubectl = [
        environment_path(settings, "dev") / "bin" / "kubectl",
        "--kubeconfig",
        facts["kubeconfig"],
        "--request-timeout=20s",
    ]
    name = facts["namespace"]
    try:
        if facts["airflow"].get("kubeconfig", facts["kubeconfig"]) != facts["kubeconfig"]:
            access.remove_access(kubectl, name)
        run([*kubectl, "delete", "namespace", name, "--ignore-not-found", "--wait=false"], timeout_s=30)
        run([*kubectl, "-n", name, "delete", "pods", "--all", "--grace-period=1", "--wait=false"], timeout_s=30)
        run(
            [*kubectl, "wait", "--for=delete", f"namespace/{name}", f"--timeout={PODS_GONE_S}s", "--request-timeout=0"],
            timeout_s=PODS_GONE_S + 10,
        )
    except StandError as trouble:
        note(str(trouble).splitlines()[-1])
    else:
        note(f"{name} deleted")


def _repositories(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The prefixes of the names of this checkout's images."""
    with_tokens = (facts.get("gke") or {}).get("registry")
    return tuple(f"{registry}/" for registry in (facts["registry"], with_tokens) if registry)


def _remove_images(facts: Mapping[str, Any]) -> int:
    """Remove the containers and images of this checkout's repositories. Returns the number of images."""
    host, prefix = facts["docker_host"], _repositories(facts)
    for container in json.loads(engine.call(host, "GET", "/containers/json", query={"all": "true"})):
        if container["Image"].startswith(prefix):
            engine.call(
                host,
                "DELETE",
                f"/containers/{container['Id']}",
                query={"force": "true", "v": "true"},
                accept=(204, 404, 409),
            )
    images = json.loads(engine.call(host, "GET", "/images/json"))
    names = plan_image_removal(images, prefix)
    for name in names:
        engine.call(host, "DELETE", f"/images/{name}", query={"force": "true"}, accept=(200, 404, 409))
    return len(names)


def plan_image_removal(images: Sequence[Mapping[str, Any]], prefix: str | tuple[str, ...]) -> list[str]:
    """Every tag and digest that begins with `prefix`. An image whose tag was moved has a digest only."""
    names = [name for image in images for kind in ("RepoTags", "RepoDigests") for name in image.get(kind) or []]
    return [name for name in names if name.startswith(prefix) and not name.endswith(":<none>")]
