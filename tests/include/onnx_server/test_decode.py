"""What the server reads and refuses, compared with TensorFlow's graph and with 🤗: the same files for each."""

import pytest
from hostile import LIMIT_S

pytestmark = pytest.mark.model

READS = ("reads", "is broken or cut short")
DAMAGED = 120  # files of each kind


def test_server_refuses_what_the_graph_refuses(decode_trial):
    """Each bad image is refused for the same reason, in the same words."""
    assert len(decode_trial["bad"]) == 19
    assert {name: said for name, said in decode_trial["bad"].items() if said[0] != said[1] or not said[0]} == {}


def test_base64_is_read_like_the_graphs(decode_trial):
    """The same texts are valid, with or without padding, and mean the same bytes."""
    assert {text: both for text, both in decode_trial["base64"].items() if both[0] != both[1]} == {}
    assert decode_trial["base64"]["aGVsbG8"] == [b"hello".hex()] * 2
    assert decode_trial["base64"]["+/8="] == [None, None]


def test_damaged_files_are_refused_alike(decode_trial):
    """What PIL, and so 🤗, makes of a damaged file counts. It refuses some damaged metadata that TensorFlow ignores; seldom the other way."""
    for kind, trial in decode_trial["damaged"].items():
        found = dict(trial["said"])
        only_graph, only_server = (found.pop(f"graph {one}, server {other}", 0) for one, other in (READS, READS[::-1]))
        assert set(found) == {"same"}, kind
        assert only_graph < 0.15 * DAMAGED, kind
        assert only_server < 0.03 * DAMAGED, kind
        assert trial["seconds"] < LIMIT_S, kind


def test_pixels_are_those_of_pil(decode_trial):
    """Every kind of file, colours, alpha, orientation and size: equal to the last bit, CMYK too."""
    assert len(decode_trial["pixels"]) > 80
    assert {image: levels for image, levels in decode_trial["pixels"].items() if levels} == {}


def test_input_of_the_model_is_that_of_the_processor(decode_trial):
    """Every processor on every image: all float32 values are equal to 🤗's."""
    assert len(decode_trial["inputs"]) == 12
    wrong = {(name, image) for name, found in decode_trial["inputs"].items() for image, count in found.items() if count}
    assert wrong == set()


def test_part_of_a_resized_image_is_that_of_the_whole(decode_trial):
    """Every filter, larger and smaller, tall and wide: all values are equal to PIL's."""
    assert len(decode_trial["windows"]) == 72
    assert {name: count for name, count in decode_trial["windows"].items() if count} == {}
