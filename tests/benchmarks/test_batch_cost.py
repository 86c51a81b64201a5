"""What the table of a batch's cost says of measured rounds."""

from benchmarks.batch_cost import DIGITS, VIT, render


def test_a_row_for_each_batch_and_a_column_for_each_model():
    """With the median, the least and the most of the rounds."""
    measured = {
        (DIGITS, 1): [2.5, 2.25, 2.0],
        (VIT, 1): [220.0, 230.0, 210.4],
        (DIGITS, 8): [0.9, 0.9, 0.9],
        (VIT, 8): [211.0, 211.0, 211.0],
    }
    head, _, one, eight, _, said = render(measured, "a machine").splitlines()
    assert head == "| images | digits-vit | a ViT-B/16 |"
    assert one == "| 1 | 2.25 (2.00 to 2.50) | 220 (210 to 230) |"
    assert eight == "| 8 | 0.90 (0.90 to 0.90) | 211 (211 to 211) |"
    assert said.startswith("Milliseconds of a processor for each image, medians of 3 rounds ")
