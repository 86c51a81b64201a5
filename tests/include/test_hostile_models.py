"""Models that do more than compute, or take data from elsewhere: each is refused by name, and none of it happens."""

import hashlib

import pytest
from exporter_checks import assert_refused

pytestmark = pytest.mark.model

REFUSALS = {
    "read_a_file": "here: its graph has the operation 'ReadFile', which is not in include/model/operations.txt. Next: ",
    "write_a_file": "here: its graph has the operation 'WriteFile', which is not in",
    "save_a_file": "here: its operation 'SaveV2' names a file by itself. Next: ",
    "restore_a_file": "here: its operation 'RestoreV2' names a file by itself. Next: ",
    "look_up_a_file": "here: its graph has the operation 'InitializeTableFromTextFileV2', which is not in",
    "print_to_a_file": "here: its graph has the operation 'PrintV2', which is not in",
    "h5-link": "tf_model.h5: its 'bad' is a link to another file. Next: ",
    "h5-storage": "tf_model.h5: its 'bad' is stored in another file. Next: ",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_model_only_computes_on_its_own_files(hostile_models, name):
    """An operation on files that the server does not name, and weights in another file, are refused by name."""
    _, refusals = hostile_models
    assert REFUSALS[name] in refusals[name]


def test_graph_that_marks_bad_images_is_accepted(hostile_models):
    """Only a data set can catch an error inside a graph: `on_bad_image: mark` needs its operations."""
    _, refusals = hostile_models
    assert refusals["marking"] is None


def test_hostile_archive_is_refused_before_it_is_loaded(run_exporter, digits_request, hostile_models, tmp_path):
    """An archive whose graph writes a file is refused, and the file is not written."""
    folder, _ = hostile_models
    sha256 = hashlib.sha256((folder / "write_a_file").read_bytes()).hexdigest()
    source = {"kind": "savedmodel", "url": "https://x/m.tar.gz", "sha256": sha256, "kept": str(folder / "write_a_file")}
    done = run_exporter({**digits_request, "source": source}, tmp_path / "out")
    assert_refused(done, tmp_path / "out", "source: https://x/m.tar.gz: its graph has the operation 'WriteFile'")
    assert not (folder / "written").exists()


def test_hostile_weights_are_refused_even_where_the_format_is_allowed(
    run_exporter, digits_request, hostile_models, tmp_path
):
    """Weights that are stored in another file are refused where the model file allows HDF5: the revision's hash does not cover it."""
    folder = hostile_models[0] / "h5-storage"
    source = {"kind": "folder", "path": str(folder), "allow": ["h5"]}
    done = run_exporter({**digits_request, "source": source}, tmp_path / "out")
    assert_refused(done, tmp_path / "out", f"{folder}/tf_model.h5: its 'bad' is stored in another file")
