"""An overlay is rendered offline: whatever it names is a file or a folder of include/manifests."""

import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rendering import render

from slipway.errors import ManifestError
from slipway.kubernetes import kustomize
from slipway.kubernetes.overlay_files import KNOWN, LARGEST_KUSTOMIZATION, LARGEST_OVERLAY, MOST_FILES, read_overlay

PAGE = Path(__file__).parents[3] / "docs" / "overlays.md"


class Outside:
    """What kustomize could reach: a port of this machine, and the program `git`."""

    def __init__(self, mark):
        self.mark = mark  # the file that the program writes
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.port = self.socket.getsockname()[1]

    def is_asked(self):
        """Whether somebody has opened a connection, or started `git`."""
        try:
            self.socket.accept()
        except BlockingIOError:
            return self.mark.exists()
        return True


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A listening port, and a `git` in front of the PATH that leaves a mark."""
    programs, mark = tmp_path / "programs", tmp_path / "git-was-started"
    programs.mkdir()
    git = programs / "git"
    git.write_text(f'#!/bin/sh\necho "$@" >> {mark}\nexit 1\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    outside = Outside(mark)
    yield outside
    outside.socket.close()


REMOTE = {
    "http": "http://127.0.0.1:{port}/base.yaml",
    "a repository over http": "http://127.0.0.1:{port}/org/repo//base?ref=main",
    "upper case": "HTTP://127.0.0.1:{port}/org/repo",
    "git::": "git::http://127.0.0.1:{port}/org/repo",
    "https": "https://127.0.0.1:{port}/org/repo//base",
    "ssh": "ssh://git@127.0.0.1:{port}/org/repo",
    "scp": "git@127.0.0.1:org/repo",
    "github": "github.com/org/repo",
    "github over ssh": "git@github.com:org/repo.git",
    "another host": "example.com/org/repo?ref=v1",
    "a marked root": "org/repo//path",
    "a file": "file:///etc",
    "an absolute path": "/etc",
    "above the manifests": "../../../secrets",
}


@pytest.mark.parametrize("field", ["resources", "bases", "components"])
@pytest.mark.parametrize("entry", REMOTE.values(), ids=REMOTE)
def test_a_base_elsewhere_is_refused_and_never_asked_for(release, overlay, outside, field, entry):
    """The error names the file, the field and the entry; kustomize has opened no connection and started no program."""
    entry = entry.format(port=outside.port)
    resources = ["../../base", *([entry] if field == "resources" else [])]
    place = overlay(**{"resources": resources, **({} if field == "resources" else {field: [entry]})})
    with pytest.raises(ManifestError) as refusal:
        render(replace(release, overlay="mine"))
    assert not outside.is_asked()
    assert str(refusal.value) == (
        f"{place}/kustomization.yaml: {field}: {entry!r} is not a file or folder below {place.parents[1]}. "
        "Next: copy what it names to there, and name the copy"
    )


def test_kustomize_itself_can_start_no_git(release, overlay, outside, monkeypatch):
    """If an entry ever passed the check, kustomize would still find no program to fetch it with."""
    place = overlay(resources=["github.com/org/repo"])
    top, text = Path("overlays/mine"), (place / "kustomization.yaml").read_bytes()
    monkeypatch.setattr(kustomize, "read_overlay", lambda _folder, _roots: (top, {top / "kustomization.yaml": text}))
    with pytest.raises(ManifestError, match="no 'git' program on path"):
        render(replace(release, overlay="mine"))
    assert not outside.is_asked()


def test_kustomize_gets_nothing_of_the_workers_environment(release, monkeypatch, tmp_path):
    """Logins, proxies and kubeconfig of the worker are not there; HOME is the scratch folder."""
    seen, program = tmp_path / "environment", tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n/bin/cat /proc/$$/environ > {seen}\n")
    program.chmod(0o755)
    monkeypatch.setattr(kustomize, "KUBECTL", str(program))
    for name in ("KUBECONFIG", "HTTPS_PROXY", "AIRFLOW_CONN_X", "KUSTOMIZE_PLUGIN_HOME"):
        monkeypatch.setenv(name, "secret")
    with pytest.raises(ManifestError):
        render(release)
    [variable] = seen.read_text().split("\0")[:-1]
    assert variable.startswith("HOME=")
    assert "slipway-task-render" in variable


def test_a_path_that_looks_like_a_repository_is_a_path(release, overlay, outside):
    """Kustomize would clone it although the folder exists; it gets `./github.com/org/repo`."""
    place = overlay(resources=["github.com/org/repo"])
    base = place / "github.com" / "org" / "repo"
    base.mkdir(parents=True)
    (base / "kustomization.yaml").write_text("resources: [../../../../../base]\n")
    assert render(replace(release, overlay="mine")) == render(release)
    assert not outside.is_asked()


@pytest.fixture
def read(tmp_path):
    """Reads an overlay whose kustomization has this text: its files by their paths, as text."""
    root = tmp_path / "manifests"
    (root / "mine").mkdir(parents=True)
    (root / "base").mkdir()
    (root / "base" / "kustomization.yaml").write_text("resources: []\n")
    (root / "mine" / "here.yaml").write_text("kind: Service\n")

    def read_(text):
        (root / "mine" / "kustomization.yaml").write_text(text)
        top, files = read_overlay(Path("mine"), [root])
        assert top == Path("mine")
        return {str(place): content.decode() for place, content in files.items()}

    read_.root = root
    return read_


def refusal_of(read, text):
    """The line that refuses a kustomization, without the folder."""
    with pytest.raises(ManifestError) as refused:
        read(text)
    message = str(refused.value)
    assert message.isprintable(), message
    assert "Next: " in message
    return message.replace(f"{read.root}", "ROOT")


FIELDS = {
    "resources": "resources: [{}]",
    "bases": "bases: [{}]",
    "components": "components: [{}]",
    "crds": "crds: [{}]",
    "configurations": "configurations: [{}]",
    "patchesStrategicMerge": "patchesStrategicMerge: [{}]",
    "patches.path": "patches: [{{path: {}}}]",
    "patchesJson6902.path": "patchesJson6902: [{{path: {}, target: {{kind: Service}}}}]",
    "replacements.path": "replacements: [{{path: {}}}]",
    "configMapGenerator.files": "configMapGenerator: [{{name: a, files: [{}]}}]",
    "configMapGenerator.envs": "configMapGenerator: [{{name: a, envs: [{}]}}]",
    "configMapGenerator.env": "configMapGenerator: [{{name: a, env: {}}}]",
    "secretGenerator.files": "secretGenerator: [{{name: a, files: [{}]}}]",
    "secretGenerator.envs": "secretGenerator: [{{name: a, envs: [{}]}}]",
    "openapi.path": "openapi: {{path: {}}}",
}
ELSEWHERE = [
    "https://example.com/x",
    "../../outside",
    "/etc/passwd",
    "nowhere.yaml",
    '"../mine\\0"',
    '"\\e[2J"',
    "a" * 5000,
]


@pytest.mark.parametrize("entry", ELSEWHERE, ids=lambda entry: entry[:20])
@pytest.mark.parametrize("where", FIELDS)
def test_every_field_with_a_path_is_checked(read, where, entry):
    """What is not a file below the manifests is refused with its field, in one line of bounded length."""
    (read.root.parent / "outside").write_text("kind: Service\n")
    message = refusal_of(read, FIELDS[where].format(entry))
    assert message.startswith(f"ROOT/mine/kustomization.yaml: {where}: '")
    assert len(message) < 500


@pytest.mark.parametrize("where", FIELDS)
def test_a_file_of_the_overlay_is_read_and_named_as_a_path(read, where):
    """Kustomize gets the file, and an entry that it can only read as a path."""
    files = read(FIELDS[where].format("here.yaml"))
    assert files.keys() == {"mine/kustomization.yaml", "mine/here.yaml"}
    given = yaml.safe_load(files["mine/kustomization.yaml"])
    assert "./here.yaml" in repr(given)
    assert yaml.safe_load(FIELDS[where].format("./here.yaml")) == given


REFUSED_FIELDS = {
    "another case": ("Resources: [../base]", "'Resources' is not a field that an overlay may use"),
    "helm": ("helmCharts: [{name: x, repo: https://example.com}]", "'helmCharts' is not a field"),
    "old helm": ("helmChartInflationGenerator: [{chartName: x}]", "'helmChartInflationGenerator' is not a field"),
    "a generator": ("generators: [here.yaml]", "'generators' is not a field"),
    "a transformer": ("transformers: [here.yaml]", "'transformers' is not a field"),
    "a validator": ("validators: [here.yaml]", "'validators' is not a field"),
    "two of a name": ("resources: [https://example.com/x]\nresources: [../base]", "resources: 'https://"),
    "two good ones": ("resources: [../base]\nresources: [../base]", "resources is given twice"),
    "a merged patch": ("patches: [{<<: {path: https://example.com/x}}]", "patches.'<<' is not a field"),
    "a patch's case": ("patches: [{Path: https://example.com/x}]", "patches.'Path' is not a field"),
    "a tagged key": ("!!binary cmVzb3VyY2Vz: [https://example.com/x]", "'cmVzb3VyY2Vz' is not a field"),
    "a key that is no text": ("? [resources]\n: [https://example.com/x]", "'' is not a field"),
    "an alias": (
        "secretGenerator: [{files: [&a 'https://example.com/?x=here.yaml']}]\nresources: [*a]",
        "is not valid YAML: has an alias",
    ),
    "a mapping": ("resources: [{a: b}]", "resources: has an entry that is not a path"),
    "a text": ("patches: [here.yaml]", "patches is not a mapping of fields"),
    "nothing": ("", "it is not a mapping of fields"),
    "two documents": ("resources: []\n---\nresources: [https://example.com/x]", "is not valid YAML"),
    "no YAML": ("resources: [", "is not valid YAML"),
    "a control character": ("resources: [\x1b]", "is not valid YAML"),
    "nesting": ("metadata: " + "[" * 10_000, "is nested too deeply"),
    "size": ("#" * (LARGEST_KUSTOMIZATION + 1), "is too large"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED_FIELDS.values(), ids=REFUSED_FIELDS)
def test_a_kustomization_has_only_known_fields(read, text, said):
    """A field that fetches, that runs a program, or that kustomize and this check could read differently is refused."""
    assert refusal_of(read, text).startswith(f"ROOT/mine/kustomization.yaml: {said}")


def test_a_generated_key_may_have_another_name_than_its_file(read):
    """In KEY=PATH the path is checked, and begins with `./`."""
    files = read("secretGenerator: [{name: a, files: [KEY=here.yaml]}]")
    assert "KEY=./here.yaml" in files["mine/kustomization.yaml"]
    said = refusal_of(read, "secretGenerator: [{name: a, files: ['KEY=https://example.com/x']}]")
    assert "secretGenerator.files: 'https://example.com/x' is not a file" in said


def test_the_page_has_the_fields():
    """docs/overlays.md names the fields that a kustomization may have, and those that are refused by name."""
    part = PAGE.read_text().split("**Files.**")[1].split("**Kinds.**")[0]
    refused = {"helmCharts", "generators", "transformers", "validators"}
    assert set(re.findall(r"`([a-z][A-Za-z0-9]+)`", part)) - refused == KNOWN - {"apiVersion", "kind"}


def test_a_base_is_checked_as_the_overlay_is(read):
    """What a base names counts too; the error names the base."""
    (read.root / "base" / "kustomization.yaml").write_text("resources: [git::https://example.com/x]\n")
    assert refusal_of(read, "resources: [../base]").startswith("ROOT/base/kustomization.yaml: resources: 'git::")


def test_a_link_that_leaves_the_manifests_is_refused(read):
    """A link inside them is followed."""
    outside = read.root.parent / "outside"
    outside.mkdir()
    (outside / "kustomization.yaml").write_text("resources: []\n")
    (read.root / "mine" / "file.yaml").symlink_to(outside / "kustomization.yaml")
    (read.root / "mine" / "folder").symlink_to(outside)
    (read.root / "mine" / "loop.yaml").symlink_to("loop.yaml")
    (read.root / "mine" / "inside").symlink_to(read.root / "base")
    for name in ("file.yaml", "folder", "loop.yaml", "folder/kustomization.yaml"):
        assert f"resources: '{name}' is not a file" in refusal_of(read, f"resources: [{name}]")
    assert read("resources: [inside]").keys() == {"mine/kustomization.yaml", "base/kustomization.yaml"}
    (read.root / "base" / "kustomization.yaml").unlink()
    (read.root / "base" / "kustomization.yaml").symlink_to(outside / "kustomization.yaml")
    assert refusal_of(read, "resources: [../base]").startswith(
        "ROOT/base/kustomization.yaml: is a link that leaves ROOT"
    )


def test_an_overlay_that_is_a_link_out_is_refused(read, tmp_path):
    """The overlay's own folder is below the manifests too."""
    outside = read.root.parent / "outside"
    outside.mkdir()
    (outside / "kustomization.yaml").write_text("resources: []\n")
    (read.root / "linked").symlink_to(outside)
    with pytest.raises(ManifestError, match=r"/linked: is a link that leaves .*\. Next: copy"):
        read_overlay(Path("linked"), [read.root])


def test_a_folder_has_one_kustomization(read):
    """Kustomize takes three names, and refuses a folder with two of them; without one it would read the folder's files."""
    (read.root / "base" / "Kustomization").write_text("resources: []\n")
    assert refusal_of(read, "resources: [../base]").startswith("ROOT/base: has 2 of kustomization.yaml, ")
    (read.root / "empty").mkdir()
    assert refusal_of(read, "resources: [../empty]").startswith("ROOT/empty: has 0 of kustomization.yaml, ")


def test_an_overlay_has_a_largest_size_and_number_of_files(read):
    """An overlay is read within bounded memory."""
    names = [f"{number}.yaml" for number in range(MOST_FILES)]
    for name in names:
        (read.root / "mine" / name).touch()
    assert len(read(yaml.safe_dump({"resources": names[1:]}))) == MOST_FILES
    assert "is one file too many" in refusal_of(read, yaml.safe_dump({"resources": [*names, "here.yaml"]}))
    with (read.root / "mine" / "0.yaml").open("wb") as file:
        file.truncate(LARGEST_OVERLAY)
    assert "ROOT/mine/here.yaml: is too large" in refusal_of(read, "resources: ['0.yaml', here.yaml]")


def test_a_base_that_builds_on_the_overlay_ends(read):
    """Kustomize refuses the cycle; the check reads each folder once."""
    (read.root / "base" / "kustomization.yaml").write_text("resources: [../mine]\n")
    assert len(read("resources: [../base]")) == 2


def test_what_the_users_folder_lacks_is_taken_from_the_shipped_one(tmp_path):
    """An overlay names `../../base` and components as if they lay next to it. What the users have themselves comes first."""
    users, shipped = tmp_path / "users", tmp_path / "shipped"
    for folder, text in {
        users / "overlays" / "mine": "resources: [../../base]\ncomponents: [../../components/a, ../../components/b]\n",
        users / "components" / "a": "kind: Component\nnamePrefix: users-\n",
        shipped / "base": "resources: [service.yaml]\n",
        shipped / "components" / "a": "kind: Component\n",
        shipped / "components" / "b": "kind: Component\n",
    }.items():
        folder.mkdir(parents=True)
        (folder / "kustomization.yaml").write_text(text)
    (shipped / "base" / "service.yaml").write_text("kind: Service\n")
    top, files = read_overlay(Path("overlays/mine"), [users, shipped])
    assert top == Path("overlays/mine")
    names = ("overlays/mine/kustomization.yaml", "base/kustomization.yaml", "base/service.yaml", "components/a/kustomization.yaml", "components/b/kustomization.yaml")  # fmt: skip
    assert set(files) == {Path(name) for name in names}
    assert b"users-" in files[Path("components/a/kustomization.yaml")]


def test_a_users_link_does_not_lead_to_the_shipped_folder(tmp_path):
    """A link that leaves the users' folder is refused, though the shipped folder has a file of that name."""
    users, shipped = tmp_path / "users", tmp_path / "shipped"
    (users / "mine").mkdir(parents=True)
    shipped.mkdir()
    (shipped / "secret.yaml").touch()
    (users / "secret.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    (users / "mine" / "kustomization.yaml").write_text("resources: [../secret.yaml]\n")
    with pytest.raises(ManifestError, match=r"'\.\./secret\.yaml' is not a file or folder below"):
        read_overlay(Path("mine"), [users, shipped])
