"""How the output of apt's simulation is read."""

from local.builds.packages import Simulation, judge_simulation

NEW = """\
Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable [amd64])
Inst docker.io (20.10.24+dfsg1-1 Debian:12.15/oldstable [amd64])
Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable [amd64])
Conf docker.io (20.10.24+dfsg1-1 Debian:12.15/oldstable [amd64])
"""
CONFLICT = """\
Remv docker-ce [5:27.1.1-1~debian.12~bookworm]
Remv containerd.io [1.7.19-1]
Inst containerd (1.6.20~ds1-1+deb12u3 Debian:12.15/oldstable [amd64])
"""
UPGRADE = "Inst libc6 [2.36-9+deb12u9] (2.36-9+deb12u13 Debian:12.15/oldstable [amd64])\n"


def test_harmless_if_every_package_is_new():
    """New packages change no installed package."""
    assert judge_simulation(NEW) == Simulation(installed=("runc", "docker.io"), removed=(), replaced=())
    assert judge_simulation(NEW).harmless


def test_harmful_if_a_package_would_be_removed():
    """The verdict names Docker's own packages, which Debian's would remove."""
    verdict = judge_simulation(CONFLICT)
    assert verdict == Simulation(installed=("containerd",), removed=("docker-ce", "containerd.io"), replaced=())
    assert not verdict.harmless


def test_harmful_if_a_package_would_be_upgraded():
    """An upgrade counts as a replacement."""
    assert judge_simulation(UPGRADE) == Simulation(installed=(), removed=(), replaced=("libc6",))
    assert not judge_simulation(UPGRADE).harmless
