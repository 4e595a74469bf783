"""Commands: files in, files out, nothing else in or out."""

from __future__ import annotations

import os
import socket
import subprocess
import time

import pytest

from cloudchamber.core.errors import CandidateError, InputError, JailUnavailable
from cloudchamber.jail import CommandJail, Limits
from cloudchamber.jail.command import _inside
from cloudchamber.jail.memory import ControlGroup

pytestmark = pytest.mark.jail


def sh(script, files=None, **options):
    return CommandJail().run(["sh", "-c", script], files, **options)


def test_files_in_files_out():
    done = sh(
        "wc -c < in.txt > out/n.txt; cat; echo no >&2; exit 3", {"in.txt": b"four", "out/x": b""}, stdin=b"hello", outputs=["out/*.txt"]
    )
    assert (done.returncode, done.stdout, done.stderr, dict(done.files)) == (3, b"hello", b"no\n", {"out/n.txt": b"4\n"})
    assert 0 < done.cpu_s < 5 and 0 < done.wall_s < 20


def test_only_regular_files_of_limited_size_come_back():
    script = "ln -s /usr/bin a.txt; ln -s /proc/self b; mkfifo c.txt; echo x > d.txt; ln d.txt e.txt; head -c 3000000 /dev/zero > f.txt"
    done = sh(script, outputs=["*"], limits=Limits(tmp=4 << 20, output=8 << 20))
    assert set(done.files) == {"d.txt", "e.txt", "f.txt"}
    assert set(sh(script + "; cp f.txt g.txt", outputs=["*"], limits=Limits(tmp=8 << 20, output=4 << 20)).files) >= {
        "d.txt",
        "e.txt",
        "f.txt",
    }


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", ".", "a//b", "a\0b"])
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(InputError, match="plain relative name"):
        _inside(name)
    with pytest.raises(InputError):
        sh("true", {name: b""})


def test_wall_limit_kills_it_and_all_it_started():
    mark = f"98{os.getpid()}"
    begin = time.monotonic()
    with pytest.raises(CandidateError) as caught:
        sh(f"setsid sleep {mark} & trap '' TERM INT; echo before; sleep {mark}", limits=Limits(wall_s=0.5))
    assert caught.value.kind == "timeout" and "before" in caught.value.feedback and time.monotonic() - begin < 5
    assert not any(mark in each for each in _commands())


def test_what_it_leaves_in_the_background_ends_with_it():
    mark = f"97{os.getpid()}"
    assert sh(f"setsid sleep {mark} > /dev/null 2>&1 & echo done").stdout == b"done\n"
    assert not any(mark in each for each in _commands())


def _commands():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                yield file.read()
        except OSError:
            continue


def test_canaries(tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY_KEY", "hunter2")
    (tmp_path / "secret").write_text("hunter2")
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        tcp.setblocking(False)
        code = f"import socket; socket.create_connection(('127.0.0.1', {tcp.getsockname()[1]}), 1)"
        script = f'env; cat {tmp_path}/secret; cat /proc/*/environ; ls /root /home; python3 -c "{code}"; kill -9 {os.getpid()} 1; id -u'
        done = sh(script)
        with pytest.raises(BlockingIOError):
            tcp.accept()
    assert b"hunter2" not in done.stdout + done.stderr and done.stdout.endswith(b"65534\n")


@pytest.mark.parametrize(
    "code",
    [
        "ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0)",
        "ctypes.CDLL(None, use_errno=True).unshare(0x10000000)",
        "ctypes.CDLL(None, use_errno=True).syscall(425, 8, ctypes.create_string_buffer(256))",
        "ctypes.CDLL(None, use_errno=True).mount(b'x', b'/tmp', b'tmpfs', 0, 0)",
        "-1 if not __import__('os').path.exists('/proc/1/mem') else [open('/proc/1/mem', 'rb')] and 0",
    ],
)
def test_calls_that_reach_deep_are_denied(code):
    done = CommandJail().run(["python3", "-c", f"import ctypes\ntry:\n    print({code} < 0)\nexcept OSError:\n    print(True)"])
    assert done.stdout == b"True\n", done


def test_fork_bomb_memory_and_flood_end():
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    with pytest.raises(CandidateError) as caught:
        CommandJail(processes=32).run(["python3", "-c", bomb], limits=Limits(wall_s=1))
    assert caught.value.kind == "timeout"
    hog = CommandJail().run(["python3", "-c", "x = bytearray(1 << 30)"], limits=Limits(memory=256 << 20))
    assert b"MemoryError" in hog.stderr
    flood = CommandJail().run(["yes"], limits=Limits(output=1 << 20))
    assert flood.returncode < 0 and len(flood.stdout) == 1 << 20


SHARED = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        kept = b"x" * (64 << 20)
        time.sleep(20)
time.sleep(20)
"""


# the jail ends with its first process, so each waits for those it forked
FITS = """
import contextlib, os
kept = b"x" * (60 << 20)
os.fork(), os.fork()
os.write(1, b"%d\\n" % len(kept))
with contextlib.suppress(ChildProcessError):
    while os.wait():
        pass
"""


@pytest.mark.parametrize("may_group", [True, False])
def test_memory_is_bounded_over_all_processes_together(may_group, monkeypatch):
    """Each holds less than the limit, all together more."""
    if not may_group:
        monkeypatch.setattr("cloudchamber.jail.command.ControlGroup", _refused)
    limits = Limits(memory=128 << 20, tmp=1 << 20, output=1 << 20, wall_s=15)
    with pytest.raises(CandidateError) as caught:
        CommandJail().run(["python3", "-c", SHARED], limits=limits)
    assert caught.value.kind == "memory" and "together" in str(caught.value)
    assert CommandJail().run(["python3", "-c", FITS], limits=limits).stdout.count(b"62914560") == 4


def _refused(*_):
    raise PermissionError(13, "no control groups here")


def test_control_groups_are_removed():
    try:
        group = ControlGroup(64 << 20, 16)
    except OSError:
        pytest.skip("no control group may be made here")
    done = subprocess.run(group.entered(["cat", "/proc/self/cgroup"]), capture_output=True, check=True, text=True)
    assert group._folders[0].name in done.stdout and not group.is_over
    group.close()
    assert not any(folder.exists() for folder in group._folders)


def test_out_of_memory_the_command_goes_first():
    assert sh("cat /proc/self/oom_score_adj").stdout == b"1000\n"


def test_shooting_the_first_process_does_not_help():
    assert sh("kill -9 1; kill -9 -1; echo alive").stdout == b"alive\n"


def test_more_may_be_shown_read_only(tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\necho tool")
    (tmp_path / "tool").chmod(0o755)
    tmp_path.chmod(0o755)
    done = CommandJail(readable=[tmp_path]).run(["sh", "-c", f"{tmp_path}/tool; echo x > {tmp_path}/new || echo refused"])
    assert done.stdout == b"tool\nrefused\n" and not (tmp_path / "new").exists()


def test_bad_input(monkeypatch):
    with pytest.raises(InputError, match="argv must be"):
        CommandJail().run([])
    with pytest.raises(InputError, match="not there"):
        CommandJail(readable=["/nowhere"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(JailUnavailable, match="apt install bubblewrap"):
        CommandJail()


def test_unknown_program_is_127():
    assert CommandJail().run(["no-such-program"]).returncode == 127


@pytest.mark.parametrize("answer", [b"", b"\xff" * 64, b"\x02\0\0\0{}", b"\x40\0\0\0" + b"[" * 64])
def test_helper_that_lies_is_a_dead_command(answer, monkeypatch, tmp_path):
    liar = tmp_path / "runner.py"
    liar.write_text(f"import os, sys\nfd = int(sys.argv[1])\nos.read(fd, 65536)\nos.write(fd, {answer!r})\nos._exit(0)\n")
    for each in (tmp_path, *tmp_path.parents):
        if str(each).startswith("/tmp/pytest"):
            each.chmod(0o755)
    monkeypatch.setattr("cloudchamber.jail.runner.__file__", str(liar))
    with pytest.raises(CandidateError) as caught:
        sh("true")
    assert caught.value.kind == "died"
