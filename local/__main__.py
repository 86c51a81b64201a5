"""The command line of the stand: `python3 -m local up`, and so on."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from local.builds.binary import PROGRAMS, build_program
from local.builds.environments import ENVIRONMENTS, build_environment, build_uv
from local.builds.packages import TEST_PROGRAMS, install_test_program
from local.builds.storage import STORAGE, build_storage
from local.commands import status
from local.errors import StandError
from local.progress import say
from local.settings import Settings, settings_here

EPILOG = """settings (environment variables):
  SLIPWAY_CACHE          folder for what is slow to build (default ~/.cache/slipway)
  SLIPWAY_DOCKER_HOST    your own engine, for example unix:///var/run/docker.sock
  SLIPWAY_KUBECONFIG     your own cluster; the stand then builds none
  SLIPWAY_REGISTRY       your own registry, as HOST:PORT
  SLIPWAY_SERVING_IMAGE  your own TensorFlow Serving image; the stand then pulls and builds none
  SLIPWAY_GCP_PROJECT    your own Google project; `up --gke` then emulates nothing, and runs are billed (docs/gke.md)

docs/stand.md describes each part and what to do when one fails."""


def main(words: Sequence[str]) -> int:
    """Run one command. The exit status is 0 only if the command succeeded."""
    arguments = _parser().parse_args(words)
    try:
        return _COMMANDS[arguments.command](settings_here(), arguments)
    except StandError as trouble:
        sys.stderr.write(f"\n{trouble}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped. Next: run the same command again to continue, or python3 -m local doctor\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m local",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raised = commands.add_parser("up", help="start what does not run yet: engine, registry, cluster, Airflow")
    raised.add_argument(
        "--gke",
        action="store_true",
        help="also start an emulator of Google's side of GKE, until `down`; with SLIPWAY_GCP_PROJECT use the real one: docs/gke.md",
    )
    raised.add_argument(
        "--metrics", action="store_true", help="also start metrics-server, until `down`: the autoscalers then scale"
    )
    raised.add_argument(
        "--onnx",
        action="store_true",
        help="also build what models with `serving.runtime: onnxruntime` need: a server's image, and six gigabytes for the exporter",
    )
    shown = commands.add_parser("status", help="print where each part is")
    shown.add_argument("--json", action="store_true", help="print JSON, for programs")
    commands.add_parser("doctor", help="check each part and name the next command for what is broken")
    commands.add_parser("down", help="stop this checkout's parts, and the shared ones if no other checkout uses them")
    refreshed = commands.add_parser(
        "refresh", help="run a model's DAG through the scheduler and follow it until it ends"
    )
    refreshed.add_argument("model", help="a file's name in include/served, without .yaml")
    refreshed.add_argument("--force", action="store_true", help="run every step again, even if nothing changed")
    refreshed.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="one of the DAG's Params")
    shown = commands.add_parser("look", help="print where to see a served model: Airflow's pages, and a request to try")
    shown.add_argument("model", help="a file's name in include/served, without .yaml")
    commands.add_parser("audit", help="check the lock files for known vulnerabilities; fails if a package was skipped")
    built = commands.add_parser("env", help="build a Python environment from its lock, or a tool, and print its path")
    built.add_argument(
        "name",
        choices=[*sorted(ENVIRONMENTS), "uv", *sorted(STORAGE), *sorted(PROGRAMS), *sorted(TEST_PROGRAMS)],
        help="uv is the installer; tests start fake-gcs, versitygw and azurite, which are object stores, prometheus and redis",
    )
    return parser


def _up(settings: Settings, arguments: argparse.Namespace) -> int:
    from local.commands.up import bring_up  # commands load only what they need

    bring_up(settings, with_gke=arguments.gke, with_metrics=arguments.metrics, with_onnx=arguments.onnx)
    return 0


def _down(settings: Settings, _arguments: argparse.Namespace) -> int:
    from local.commands.down import bring_down  # commands load only what they need

    bring_down(settings)
    return 0


def _status(settings: Settings, arguments: argparse.Namespace) -> int:
    found = status.read_status(settings)
    say(json.dumps(found, indent=2) if arguments.json else status.render_table(found))
    return 0


def _doctor(settings: Settings, _arguments: argparse.Namespace) -> int:
    rows = status.diagnose(settings)
    for name, trouble in rows:
        say(f"{name:<20} {trouble or 'ok'}")
    return 1 if any(trouble for name, trouble in rows if name != "stand-in") else 0


def _refresh(settings: Settings, arguments: argparse.Namespace) -> int:
    from local.commands.refresh import refresh  # commands load only what they need

    return refresh(settings, arguments.model, force=arguments.force, params=arguments.param)


def _look(settings: Settings, arguments: argparse.Namespace) -> int:
    say(status.render_look(status.read_status(settings), arguments.model, settings.checkout))
    return 0


def _env(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.name == "uv":
        path = build_uv(settings).parent.parent
    elif arguments.name in STORAGE:
        path = build_storage(settings, arguments.name)
    elif arguments.name in PROGRAMS:
        path = build_program(settings, arguments.name, lambda _: None).parent
    elif arguments.name in TEST_PROGRAMS:
        path = install_test_program(settings, arguments.name)
    else:
        path = build_environment(settings, arguments.name)
    say(str(path))
    return 0


def _audit(settings: Settings, _arguments: argparse.Namespace) -> int:
    from local.commands.audit import audit  # commands load only what they need

    found = audit(settings)
    for line in found:
        say(line)
    return 1 if found else 0


_COMMANDS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    "up": _up,
    "status": _status,
    "doctor": _doctor,
    "down": _down,
    "refresh": _refresh,
    "look": _look,
    "audit": _audit,
    "env": _env,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
