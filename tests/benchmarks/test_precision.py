"""What the table of `make onnx-precision` says of the exports."""

from benchmarks.precision import Row, refusal, render_row

PARITY = {"images": 33, "labels_equal": 32, "largest_difference": 0.00025}
INT8 = {
    "images": 223,
    "calibration_images": 74,
    "labels_changed": 1,
    "correct_float32": 219,
    "correct_int8": 218,
    "largest_difference": 0.0422,
}


def row(way, card, model="digits-vit"):
    """A row of the table."""
    return render_row(Row(model=model, way=way, file_bytes=394_661, card=card, resident_mb=1.234, cpu_ms=0.6))


def test_row_of_stored_weights_has_the_parity():
    """Its difference and labels are those against 🤗."""
    expected = "| digits-vit | `float16_weights` | 0.395 | 1.23 | 0.6 | 0.00025 | 1 of 33 | - |"
    assert expected == row("float16_weights", {"parity": PARITY})


def test_row_of_int8_has_what_it_changed():
    """Its difference and labels are those against float32; those of a model with random weights mean nothing."""
    card = {"parity": PARITY, "int8": INT8}
    expected = "| digits-vit | `int8, static` | 0.395 | 1.23 | 0.6 | 0.0422 | 1 of 223 | 218 (float32 219) |"
    assert expected == row("int8, static", card)
    assert row("int8, dynamic", card, "vit-b-16").endswith("| 0.6 | - | - | - |")


def test_row_of_a_refused_export_has_its_difference():
    """The exporter's line says how far the worst image is from 🤗."""
    said = (
        "parity: 2 of 30 images differ from 🤗; the worst is PNG 'a': the exported graph answers 'x' (0.2000), 🤗's own model 'x' (0.2019), "
        "0.00190 apart, pixels up to 0.00 levels; allowed: 1 level and 0.001. Next: report it with the checkpoint"
    )
    expected = "| ViT-B/16 | `float16_weights` | - | - | - | 0.00190, refused | - | - |"
    assert expected == render_row(refusal("ViT-B/16", "float16_weights", said))
