import os
import traceback

import pytest
import yaml

from slipway.errors import InputRefused
from slipway.model.served import check_unshared, overlay_names, parse_model_file, read_model_file, served_files
from slipway.paths import INCLUDE

SMALLEST = {
    "source": {"folder": "checkpoint"},
    "gate": {"golden": [{"name": "three", "image": "golden/three.png", "label": "3"}]},
}


BROKEN = {
    "tab": b"source:\n\tfolder: a\n",
    "open bracket": b"source: [\n",
    "two documents": b"source: {folder: a}\n---\nsource: {folder: b}\n",
    "a python object": b"source: !!python/object:os.system {}\n",
    "an impossible date": b"description: 2026-13-45\n",
    "control characters": b"source: \x00\n",
    "not UTF-8": b"description: \xff\xfe\n",
    "a list that is said to be a mapping": b"source: !!map [a]\n",
    "one field twice": b"source: {folder: a}\nsource: {folder: b}\ngate: {golden: [{name: a, image: a, label: a}]}\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_refused_in_one_line_if_not_yaml(tmp_path, text):
    """A file that is not YAML is refused in one line that names it."""
    path = tmp_path / "m.yaml"
    path.write_bytes(text)
    with pytest.raises(InputRefused) as refusal:
        read_model_file(path)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert "Next: " in message


LEAKS = {
    "not YAML": "source: {savedmodel: 'https://x/m?sig=pass-word\n",
    "a wrong indent": "source:\n    savedmodel: https://x/m?sig=pass-word\n  sha256: a\n",
    "a field twice": "'https://x/m?sig=pass-word': a\n'https://x/m?sig=pass-word': b\n",
    "not a number": "source: {savedmodel: !!int 'https://x/m?sig=pass-word'}\n",
    "a wrong hash": "source: {savedmodel: 'https://x/m?sig=pass-word', sha256: a}\n",
    "nonsense": "https://me:pass-word@x/m",
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_a_refusal_does_not_quote_the_secret_of_a_url(tmp_path, text):
    """The line says which line of the file is wrong, but neither it nor the traceback quotes a signature."""
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(InputRefused, match=r"Next: ") as refusal:
        read_model_file(path)
    assert "pass-word" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize(
    "name", ["Digits.yaml", "a_b.yaml", "3d.yaml", "my model.yaml", "a-.yaml", "a\n.yaml", f"{'a' * 41}.yaml"]
)
def test_refused_if_the_file_name_is_not_a_model_name(tmp_path, name):
    """The file's name is the model's name, so it must be a valid one."""
    path = tmp_path / name
    path.write_text(yaml.safe_dump(SMALLEST))
    with pytest.raises(InputRefused, match=r"the file's name is the model's name, .*Next: use lower-case") as refusal:
        read_model_file(path)
    assert "\n" not in str(refusal.value)


def test_refused_if_the_file_does_not_exist(tmp_path):
    """A missing file is named."""
    with pytest.raises(InputRefused, match=r"gone\.yaml: no such model file\. Next: create it"):
        read_model_file(tmp_path / "gone.yaml")


def test_refused_if_it_is_a_folder(tmp_path):
    """A folder is not a model file."""
    (tmp_path / "m.yaml").mkdir()
    with pytest.raises(InputRefused, match=r"m\.yaml: cannot be read: .*Next: "):
        read_model_file(tmp_path / "m.yaml")


def test_refused_if_it_is_a_pipe(tmp_path):
    """A pipe without a writer would block the parse of all DAGs for ever."""
    os.mkfifo(tmp_path / "m.yaml")
    with pytest.raises(InputRefused, match=r"m\.yaml: cannot be read: not a file\. Next: "):
        read_model_file(tmp_path / "m.yaml")


def test_aliases_are_allowed(tmp_path):
    """An anchor saves repetition; only an expansion out of proportion is refused."""
    path = tmp_path / "m.yaml"
    path.write_text(
        "source: {folder: a}\ngate:\n  golden:\n"
        "  - &three {name: three, image: a.png, label: '3'}\n  - {<<: *three, name: four}\n"
    )
    assert [case.label for case in read_model_file(path).gate.golden] == ["3", "3"]


def test_shipped_model_files_are_valid():
    """Every model file that ships with Slipway is valid, and its golden images exist."""
    files = {path.stem: read_model_file(path) for path in served_files()}
    assert "digits-vit" in files
    check_unshared(files)
    for file in files.values():
        assert file.target.overlay in {None, *overlay_names()}
        for case in file.gate.golden:
            assert case.sha256 or (INCLUDE / "served" / case.image).is_file()


def target(**changes):
    """A model file with a target."""
    return parse_model_file({**SMALLEST, "target": changes}, where="m.yaml")


def test_refused_if_two_files_write_one_deployment():
    """Two model files that would write the same object are refused; the message names both and the field."""
    with pytest.raises(
        InputRefused,
        match=r"include/served/b\.yaml: target\.deployment: 'tfs-server' is also written by include/served/a\.yaml\. Next: ",
    ):
        check_unshared({"b": target(), "a": target()})


def test_refused_if_one_file_writes_the_others_preview():
    """A model file with a preview writes the preview's Deployment too."""
    with pytest.raises(InputRefused, match=r"'tfs-server-preview' is also written by include/served/a\.yaml"):
        check_unshared({"a": target(), "b": target(deployment="tfs-server-preview")})
    check_unshared({"a": target(strategy="rolling"), "b": target(deployment="tfs-server-preview")})


@pytest.mark.parametrize(
    "other", [{"deployment": "tfs-two"}, {"namespace": "other"}, {"conn_id": "elsewhere"}], ids=str
)
def test_accepted_if_deployments_differ(other):
    """Another name, namespace or cluster is enough."""
    check_unshared({"a": target(), "b": target(**other)})


def test_overlays_are_the_folders_with_a_kustomization(tmp_path):
    """A folder without a kustomization is not an overlay."""
    for folder in ("mine/overlays/two", "mine/overlays/one", "shipped/overlays/one", "shipped/overlays/three"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "kustomization.yaml").touch()
    (tmp_path / "mine" / "overlays" / "draft").mkdir()
    assert overlay_names((tmp_path / "mine", tmp_path / "shipped")) == ["one", "three", "two"]
    assert "local" in overlay_names()
