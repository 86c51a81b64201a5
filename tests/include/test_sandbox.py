"""The sandbox of export.py: what a process that is shut in can still do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from exporter_checks import assert_refused

MODEL = Path(__file__).parents[2] / "include" / "model"

ATTEMPTS = """
import ctypes, json, os, socket, subprocess, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandbox import shut_in
given, own, elsewhere = map(Path, sys.argv[2:5])
sandbox = shut_in(read=[given], write=[own])
CDLL = ctypes.CDLL(None, use_errno=True)

def clone_with_a_process():
    if CDLL.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 17, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "clone")

def started():
    thread = threading.Thread(target=open, args=(given / "input",))
    thread.start()
    thread.join()

attempts = {
    "read its input": lambda: (given / "input").read_text(),
    "write to its folder": lambda: (own / "output").write_text("x"),
    "rename there": lambda: (own / "output").rename(own / "renamed"),
    "start a thread": started,
    "import a module": lambda: __import__("decimal"),
    "read another file": lambda: (elsewhere / "secret").read_text(),
    "read it through a link": lambda: (given / "link").read_text(),
    "read its environment": lambda: Path("/proc/self/environ").read_text(),
    "read its parent's": lambda: Path(f"/proc/{os.getppid()}/environ").read_text(),
    "read /etc": lambda: Path("/etc/passwd").read_text(),
    "list the root": lambda: os.listdir("/"),
    "write to its input": lambda: (given / "input").write_text("x"),
    "write elsewhere": lambda: (elsewhere / "new").write_text("x"),
    "delete elsewhere": lambda: (elsewhere / "secret").unlink(),
    "move something elsewhere": lambda: (own / "renamed").rename(elsewhere / "moved"),
    "make a link": lambda: (own / "link").symlink_to("/etc/passwd"),
    "make a hard link": lambda: (own / "hard").hardlink_to(elsewhere / "secret"),
    "make a pipe": lambda: os.mkfifo(own / "pipe"),
    "make a TCP socket": lambda: socket.socket(),
    "make a UDP socket": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "make a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "make a vsock": lambda: socket.socket(40),
    "fork": os.fork,
    "clone a process": clone_with_a_process,
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "become one": lambda: os.execv("/bin/true", ["true"]),
}
seen = {}
for name, attempt in attempts.items() if sandbox.landlock else list(attempts.items())[:-2]:  # the last ones would end it
    try:
        attempt()
        seen[name] = "done"
    except OSError as error:
        seen[name] = type(error).__name__
print(json.dumps({"sandbox": str(sandbox), "complete": sandbox.is_complete, "seen": seen}))
"""
ALLOWED = {"read its input", "write to its folder", "rename there", "start a thread", "import a module"}

HIDDEN = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
import sandbox
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(sandbox.NO_NEW_PRIVS, 1, 0, 0, 0)
step = lambda code, value, holds=0, fails=0: sandbox.struct.pack("HBBI", code, holds, fails, value)
program = b"".join([step(sandbox.LOAD, 0), step(sandbox.EQUAL, sandbox.CREATE_RULESET, 0, 1), step(sandbox.RETURN, sandbox.REFUSE | 38),
                    step(sandbox.RETURN, sandbox.ALLOW)])
code = ctypes.create_string_buffer(program, len(program))
assert libc.prctl(sandbox.SET_SECCOMP, 2, sandbox.struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def places(tmp_path):
    """A folder that is given, one of the process's own, and one elsewhere with a secret."""
    folders = [tmp_path / name for name in ("given", "own", "elsewhere")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "input").write_text("input")
    (folders[0] / "link").symlink_to(folders[2] / "secret")
    (folders[2] / "secret").write_text("secret")
    return folders


def attempt(places, *wrapped):
    """What the process reports of its attempts."""
    command = [*wrapped, sys.executable, "-c", ATTEMPTS, MODEL, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "CANARY": "canary"})
    return json.loads(done.stdout)


def test_process_that_is_shut_in_reads_its_input_and_writes_its_folder(places):
    """A process that is shut in can do what an export needs, and nothing else: neither files, nor network, nor other processes."""
    found = attempt(places)
    assert {name for name, outcome in found["seen"].items() if outcome == "done"} == ALLOWED
    assert found["complete"]
    assert found["sandbox"].endswith("seccomp")
    assert (places[2] / "secret").read_text() == "secret"


def test_without_landlock_it_says_so(places):
    """Where the kernel hides Landlock, as some container runtimes do, the sandbox is not complete and says so; seccomp still holds."""
    found = attempt(places, sys.executable, "-c", HIDDEN, MODEL)
    assert (found["sandbox"], found["complete"]) == ("this kernel has no Landlock, seccomp", False)
    assert found["seen"]["read another file"] == "done"
    assert {found["seen"][name] for name in ("make a TCP socket", "make a Unix socket", "fork", "clone a process")} == {
        "PermissionError"
    }


@pytest.mark.parametrize("kind", ["archive", "h5"])
def test_programs_and_old_formats_need_a_sandbox(model_python, run_exporter, digits_request, tmp_path, kind):
    """Without Landlock, an archive and weights in HDF5 are refused before they are opened, unless the request allows it."""
    import hashlib
    import shutil
    import tarfile

    if kind == "archive":
        (tmp_path / "saved_model.pb").write_bytes(b"not opened")
        with tarfile.open(tmp_path / "kept", "w:gz") as tar:
            tar.add(tmp_path / "saved_model.pb", "saved_model.pb")
        digest = hashlib.sha256((tmp_path / "kept").read_bytes()).hexdigest()
        source = {"kind": "savedmodel", "url": "https://x/m.tar.gz", "sha256": digest, "kept": str(tmp_path / "kept")}
    else:
        shutil.copytree(digits_request["source"]["path"], tmp_path / "checkpoint")
        (tmp_path / "checkpoint" / "model.safetensors").rename(tmp_path / "checkpoint" / "tf_model.h5")
        source = {"kind": "folder", "path": str(tmp_path / "checkpoint"), "allow": ["h5"]}
    request, out = {**digits_request, "source": source}, tmp_path / "work" / "out"
    (tmp_path / "request.json").write_text(json.dumps(request))
    words = [model_python, MODEL / "export.py", "--request", tmp_path / "request.json", "--out", out]
    done = subprocess.run([sys.executable, "-c", HIDDEN, MODEL, *words], capture_output=True, text=True, check=False)
    assert_refused(done, out, "this worker cannot shut it in: this kernel has no Landlock", "slipway_without_sandbox")
    assert "TensorFlow" not in done.stdout
