"""Unpacks a tar of SIZE bytes from standard input into /inputs of an exporter's pod: python -c THIS SIZE.

Standard input has no end here: Kubernetes' older protocols for `exec` cannot close it.
"""

import sys
import tarfile


class Counted:
    """Standard input, which ends after so many bytes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def read(self, size: int) -> bytes:
        """The next bytes."""
        found = sys.stdin.buffer.read(min(size, self.left))
        self.left -= len(found)
        return found


source = Counted(int(sys.argv[1]))
with tarfile.open(fileobj=source, mode="r|") as tar:
    tar.extractall("/inputs")  # noqa: S202 - Slipway itself made this tar; filters need Python 3.11.4
while source.left:  # what follows the tar's end
    source.read(source.left)
with open("/inputs/complete", "x"):  # noqa: PTH123 - as in the other programs of the pod, which import little
    pass
print("complete", flush=True)
