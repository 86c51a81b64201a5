"""Only what PyTorch's class and the server can do with a checkpoint's own weights is exported."""

import pytest

pytestmark = pytest.mark.model

REFUSED = {
    "a weight is missing": "here: 1 weights are missing (classifier.weight). Next: ",
    "a weight has another shape": "classifier.weight",
    "a weight is left over": "here: 1 weights are none of ViTForImageClassification's (extra.weight). Next: ",
    "PyTorch's names in TensorFlow's layout": "has no name of TensorFlow's",
    "not safetensors": "here: ",
    "HDF5": "source: here: its weights are in HDF5, which only TensorFlow's classes read. Next: ",
    "another model type": "here/config.json: model type 'bert' has no class for image classification",
    "colours instead of pixels": "model type 'imagegpt' takes the numbers of colours instead of pixels. Next: ",
    "patches instead of pixels": "model type 'siglip2' takes a varying number of patches of an image. Next: ",
    "one of two classes": "it has no architectures. Next: let it name DeiTForImageClassification or DeiTForImageClassificationWithTeacher",
    "code of its own": "here: ",
    "another processor": "the image processor ImageGPTImageProcessor is not supported: it outputs numbers of colours instead of pixels. Next: ",
    "a border": "preprocessor_config.json: do_pad is not supported: it adds a border to the prepared image. Next: ",
    "images of another size": "the model does not take the 36 x 36 pixels of its image processor (",
    "a filter of PIL alone": "resample box is not supported for a fast image processor. Next: ",
    "one label fewer": "id2label has 6 labels, and the model 7 outputs. Next: ",
}


@pytest.mark.parametrize("what", REFUSED)
def test_checkpoint_is_refused(checkpoints_trial, what):
    """Nothing is invented or guessed: the message names the weight, the model type or the setting."""
    assert REFUSED[what] in (checkpoints_trial["refused"][what] or "nothing is wrong")
    assert "Next: " in checkpoints_trial["refused"][what]


def test_every_spoilt_checkpoint_is_tested(checkpoints_trial):
    """The script and this file name the same ones; the checkpoint that is spoilt is a good one."""
    assert set(REFUSED) == set(checkpoints_trial["refused"])
    assert checkpoints_trial["good"] is None


def test_library_is_that_of_the_processors_author(checkpoints_trial):
    """A plain name is PIL's in transformers 4 and before, and torchvision's in 5. Google's ViT names it ViTFeatureExtractor."""
    assert checkpoints_trial["libraries"] == {
        "ViTImageProcessor None": "pil",
        "ViTImageProcessor 4.57.6": "pil",
        "ViTImageProcessor 5.24.0": "torchvision",
        **{f"ViTImageProcessorFast {version}": "torchvision" for version in (None, "4.57.6", "5.24.0")},
        **{f"ViTImageProcessorPil {version}": "pil" for version in (None, "4.57.6", "5.24.0")},
        **{f"ViTFeatureExtractor {version}": "pil" for version in (None, "4.57.6", "5.24.0")},
    }


@pytest.mark.parametrize("processor", ["ViTImageProcessor", "ViTImageProcessorPil"])
def test_processor_of_transformers_5_gives_its_authors_values(checkpoints_trial, processor):
    """As it is loaded, and as the server computes it. That on PIL is known only by a name that transformers 5 does not write."""
    loaded, served = checkpoints_trial["as the author"][processor]
    assert loaded == 0
    assert served <= 1e-5


def test_images_that_are_not_compared_are_named_and_counted(checkpoints_trial):
    """🤗's own processor refuses an image of one row here. If it refuses most images, nothing is proven, and so nothing is exported."""
    *said, counted = checkpoints_trial["few"]
    refused = [
        line for line in said if line.startswith("parity: not compared, because 🤗's own processor refuses it: ")
    ]
    assert refused[0].endswith("(1 rows are too few.)")
    assert counted == f"skipped: {len(refused)}"
    assert f" images compared, {len(refused)} not; " in said[-1]
    assert checkpoints_trial["too few"][0].startswith("parity: only 0 of ")
    assert "Next: " in checkpoints_trial["too few"][0]


def test_processor_that_gives_another_size_breaks_its_promise(checkpoints_trial):
    """Its arrays cannot be compared with the server's; one line says so."""
    said = checkpoints_trial["of another size"]
    assert (
        "🤗's own processor gives arrays of (1, 3, 32, 36), and the steps that are read from its settings (1, 3, 32, 32). Next: "
        in said
    )


def test_tensorflows_layout_is_pytorchs(checkpoints_trial):
    """The digits' weights, which TensorFlow saved, give the answers that they give when PyTorch has saved them again."""
    assert checkpoints_trial["layouts"]["weights"] == 0
    assert (
        checkpoints_trial["layouts"]["logits"] <= 1e-5
    )  # the order in which a product adds depends on how it lies in memory


def test_exporter_is_shut_in(checkpoints_trial):
    """While it exports, it reads its input and writes to its folder; no other file, no network, no other process."""
    left = checkpoints_trial["left"]
    if "no Landlock" in left.pop("sandbox"):
        pytest.skip("this kernel has no Landlock")
    assert (left.pop("read its input"), left.pop("write to its folder")) == ("done", "done")
    assert set(left.values()) == {"Permission denied"}, left
