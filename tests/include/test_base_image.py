"""The recipe of a base image: its list of CPU features."""

import subprocess
from pathlib import Path

DOCKERFILE = Path(__file__).parents[2] / "include" / "base-image" / "Dockerfile"
MACROS = """
#define __AVX512F__ 1
#define __AVX2__ 1
#define __FMA__ 1
#define __AMX_BF16__ 1
#define __BMI2__ 1
#define __SSE2__ 1
#define __AVX512VNNI__ 1
#define __x86_64__ 1
#define __GCC_HAVE_SYNC_COMPARE_AND_SWAP_16 1
"""


def test_the_compilers_macros_become_features(tmp_path):
    """In the words of Node Feature Discovery, sorted, and without what every such CPU has."""
    [line] = [line for line in DOCKERFILE.read_text().replace("\\\n", "").splitlines() if line.startswith("RUN sed")]
    (tmp_path / "macros").write_text(MACROS)
    script = (
        line.removeprefix("RUN ")
        .replace("/macros", f"{tmp_path}/macros")
        .replace("/cpu-features", f"{tmp_path}/features")
    )
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["AMXBF16", "AVX2", "AVX512F", "AVX512VNNI", "BMI2", "FMA3"]


def test_the_recipe_says_that_it_is_untested():
    """And so does the page."""
    page = DOCKERFILE.parents[2] / "docs" / "base-image.md"
    assert "UNTESTED" in DOCKERFILE.read_text()
    assert "This recipe is untested" in page.read_text()
