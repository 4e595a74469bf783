"""Each wall has a test that fails without it: with no wall a probe gets through, with any one of those named alone it does not."""

from __future__ import annotations

import dataclasses
import inspect
import os
import secrets
import socket
import time
from pathlib import Path

import msgspec
import pytest

from cloudchamber.core.errors import CandidateError
from cloudchamber.jail import check as checking
from cloudchamber.jail import filters, launch
from cloudchamber.jail.launch import Zygote, system_places
from cloudchamber.jail.levels import contract_of
from cloudchamber.jail.limits import Limits
from cloudchamber.jail.probe import Prober
from cloudchamber.jail.proxy import Session, proxy_of
from cloudchamber.jail.stage import site_folders, stage
from cloudchamber.jail.walls import Walls

pytestmark = pytest.mark.jail
SMALL = Limits(memory=64 << 20, tmp=8 << 20)
NONE = {"limits": False, "landlock": False, "seccomp": b"", "capabilities": False}


def _only(**walls):
    return lambda full: msgspec.structs.replace(full, **{**NONE, **walls})


def _without(**walls):
    return lambda full: msgspec.structs.replace(full, **walls)


READABLE = (*system_places(), str(stage(Prober, ()).folder / "lib"), *map(str, stage(Prober, ()).places), "/dev/null")
SETUPS = {  # name -> level, change: one kind of wall at a time
    "nothing": ("subprocess", _only()),
    "limits": ("subprocess", _only(limits=True)),
    "landlock": ("subprocess", _only(landlock=True, readable=READABLE)),
    "seccomp": ("subprocess", _only(seccomp=filters.program())),
    "namespaces": ("namespace", _only()),
    "namespaces, nothing hidden": ("namespace", _only(hidden=())),
    "namespaces and limits": ("namespace", _only(limits=True)),
    "all but hidden": ("namespace", _without(hidden=(), landlock=False)),
    "all but seccomp": ("namespace", _without(seccomp=b"")),
    "all but landlock": ("namespace", _without(landlock=False)),
    "all but limits": ("namespace", _without(limits=False)),
    "all": ("namespace", _without()),
}
# what alone stops each attempt
STOPS = {
    "read a file": ["landlock", "namespaces"],
    "write a file": ["landlock", "namespaces"],
    "see processes": ["landlock", "namespaces"],
    "connect": ["landlock", "seccomp", "namespaces"],
    "abstract socket": ["landlock", "seccomp", "namespaces"],
    "start a process": ["seccomp", "namespaces and limits"],
    "start a thread": ["seccomp", "namespaces and limits"],
    "run a program": ["seccomp"],
    "signal": ["landlock", "seccomp", "namespaces"],
    "trace": ["seccomp"],
    "namespace": ["seccomp"],
    "memory": ["limits"],
    "fill /tmp": ["landlock", "namespaces"],
}


@pytest.fixture(scope="module")
def zygotes():
    made = {}

    def get(name):
        if name not in made:
            level, change = SETUPS[name]
            made[name] = Zygote(level, stage(Prober, ()), change)
        return made[name]

    yield get
    for each in made.values():
        each.close()


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    file = tmp_path_factory.mktemp("walls") / "canary"
    file.write_text("secret")
    name = secrets.token_hex(8)
    tcp, unix = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    unix.bind(f"\0{name}")
    unix.listen()
    yield {
        "read a file": str(file),
        "write a file": str(file),
        "connect": str(tcp.getsockname()[1]),
        "abstract socket": name,
        "memory": str(128 << 20),
        "fill /tmp": f"/tmp/walls-{name}",
    }
    tcp.close()
    unix.close()
    for each in os.listdir("/tmp"):
        if each.startswith(f"walls-{name}"):
            os.unlink(f"/tmp/{each}")


def attempt(zygote, wall, target, limits=SMALL, source=checking.PROBER):
    contract = contract_of(Prober)
    session = Session(zygote.spawn(limits), contract, limits)
    session.wait_for_walls()
    session.load(source, None, "probe.py")
    with proxy_of(session, contract, source, None) as prober:
        try:
            return prober.attempt(wall, target)
        except CandidateError as error:
            return f"stopped: {error}"


@pytest.mark.parametrize("wall", STOPS)
def test_gets_through_without_a_wall_and_any_one_of_these_alone_stops_it(wall, zygotes, targets):
    target = targets.get(wall, str(os.getpid()))
    met = attempt(zygotes("nothing"), wall, target)
    assert not met.startswith("stopped"), met
    for alone in STOPS[wall]:
        met = attempt(zygotes(alone), wall, target)
        assert met.startswith("stopped"), f"{alone}: {met}"


@pytest.mark.parametrize("wall", STOPS)
def test_walls_back_each_other(wall, zygotes, targets):
    """No attempt depends on one wall but those that one alone can stop."""
    target = targets.get(wall, str(os.getpid()))
    for setup in ("all", "all but landlock", *(["all but seccomp"] if STOPS[wall] != ["seccomp"] else [])):
        met = attempt(zygotes(setup), wall, target)
        assert met.startswith("stopped"), f"{setup}: {met}"


def test_environment_is_empty_because_the_launcher_passes_none(zygotes, monkeypatch):
    monkeypatch.setenv("CANARY_KEY", "secret")
    assert "KeyError" in attempt(zygotes("nothing"), "see the environment", "CANARY_KEY")


LOOK = """
class Look:
    def attempt(self, wall, target):
        import os
        return str(eval(wall, {"os": os}))
"""


def look(zygote, expression):
    return attempt(zygote, expression, "", source=LOOK)


def test_proc_and_kernels_are_there_until_they_are_hidden(zygotes):
    hidden = zygotes("all but landlock")
    assert "meminfo" in look(zygotes("all but hidden"), "os.listdir('/proc')")
    assert look(hidden, "os.listdir('/proc'), os.listdir('/kernels')") == "([], [])"


def test_capabilities_are_there_until_they_are_dropped(zygotes):
    status = "[line for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))]"
    with_caps = Zygote("namespace", stage(Prober, ()), _without(seccomp=b"", landlock=False, hidden=(), capabilities=False))
    without = Zygote("namespace", stage(Prober, ()), _without(seccomp=b"", landlock=False, hidden=()))
    # not dumpable, so that its own /proc belongs to root and cannot be read by it
    assert "1ffffffffff" in look(with_caps, status)
    assert "CapEff:\\t0000000000000000" in look(without, status)
    with_caps.close()
    without.close()


def test_tmp_of_another_candidate_is_not_there(zygotes):
    zygote = zygotes("all")
    assert look(zygote, "open('/tmp/note', 'w').write('x'), os.listdir('/tmp')") == "(1, ['note'])"
    assert look(zygote, "os.listdir('/tmp')") == "[]"


def test_only_the_channel_and_the_streams_are_open(zygotes):
    probe = """
import os
class Look:
    def attempt(self, wall, target):
        found = []
        for fd in range(1024):
            try:
                os.fstat(fd)
                found.append(fd)
            except OSError:
                pass
        return str(found)
"""
    assert attempt(zygotes("all"), "", "", source=probe) == "[0, 1, 2, 3]"


def test_processor_limit_acts_and_is_told_from_a_kill(zygotes):
    spin = "class A:\n    def attempt(self, wall, target):\n        while True: pass"
    limits = Limits(cpu_s=1, call_s=10)
    begin = time.monotonic()
    met = attempt(zygotes("all"), "", "", limits, source=spin)
    assert "processor time; the limit cpu_s is 1" in met and time.monotonic() - begin < 9


GREEDY = """
import mmap, time
class Greedy:
    def attempt(self, wall, target):
        if wall == "reserve":
            return str(len(mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)))
        kept = [b"x" * (1 << 20) for _ in range(int(target))]
        time.sleep(0.5)
        return str(len(kept))
"""


@pytest.mark.parametrize("level", ["namespace", "landlock"])
def test_sparse_libraries_may_reserve_what_they_like_and_hold_what_the_limit_says(level, zygotes):
    zygote = Zygote(level, stage(Prober, ()), _without(sparse=True))
    assert "memory" in attempt(zygotes("all"), "reserve", "", source=GREEDY).lower()
    assert attempt(zygote, "reserve", "", source=GREEDY) == str(8 << 30)
    assert attempt(zygote, "hold", "40", source=GREEDY) == "40"
    contract = contract_of(Prober)
    session = Session(zygote.spawn(SMALL), contract, SMALL)
    session.wait_for_walls()
    session.load(GREEDY, None, "probe.py")
    with pytest.raises(CandidateError, match="held more than the limit memory of 67108864 bytes") as caught:
        session.call(0, ("hold", "400"))
    assert caught.value.kind == "memory"
    zygote.close()


def test_a_stage_with_torch_is_sparse():
    small = stage(Prober, ())
    assert not launch.is_sparse(small) and launch.is_sparse(dataclasses.replace(small, libraries=("numpy", "torch")))


def test_packages_of_the_base_interpreter_are_not_read_at_the_level_landlock():
    found = [each for folder in site_folders() for each in Path(folder).glob("*/*.py")]
    if not found:
        pytest.skip("nothing is installed in the base interpreter")
    zygote = Zygote("landlock", stage(Prober, ()))
    for file in (found[0], Path("/lib") / found[-1].relative_to("/usr/lib") if found[-1].is_relative_to("/usr/lib") else found[-1]):
        assert "PermissionError" in attempt(zygote, "read a file", str(file))
    assert "PermissionError" not in attempt(zygote, "read a file", inspect.getsourcefile(inspect))
    zygote.close()


def test_host_name_and_user_are_nobodys(zygotes):
    assert look(zygotes("all"), "os.uname().nodename, os.getuid(), os.getpid(), os.getppid()") == "('chamber', 65534, 1, 0)"


def test_out_of_memory_the_child_goes_first(zygotes):
    zygote = Zygote("namespace", stage(Prober, ()), _without(seccomp=b"", landlock=False, hidden=(), capabilities=False))
    assert look(zygote, "open('/proc/self/oom_score_adj').read()") == "1000\n"
    zygote.close()


def test_every_probe_of_the_check_has_a_test_here():
    assert set(STOPS) | {"see the environment"} == set(checking.ATTEMPTS)
    assert {"namespaces", "hidden", "limits", "capabilities", "landlock", "seccomp"} <= set(Walls.__struct_fields__)
