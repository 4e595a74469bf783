from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloudchamber.jail import Limits
from cloudchamber.jail.levels import NamespaceJail

from .play import Clue, Player

QUICK = Limits(cpu_s=4, wall_s=6, call_s=1, memory=256 << 20, tmp=4 << 20, output=1 << 20)
HONEST = """
from tests.jail.play import Guess
class Honest:
    def reset(self, rng): self.first = float(rng.random())
    def guess(self, clue): return Guess(self.first + float(clue.values.sum()), picks=(clue.step,))
"""


def play(source, limits=QUICK, jail=None, steps=3, name=None):
    """One trial of the little game; what the world saw."""
    player = (jail or NamespaceJail(libraries=("numpy",))).load(source, Player, name=name, limits=limits)
    with player:
        player.reset(np.random.default_rng(7))
        return [player.guess(Clue(step, np.arange(3.0) * step)) for step in range(steps)]


class Canaries:
    """What a candidate must neither see nor touch."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(8)
        self.file = folder / "canary.txt"
        self.file.write_text(self.secret)
        self.stray = Path("/tmp") / f"canary-{self.secret}"
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0canary-{self.secret}")
        self.abstract.listen()
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", self.secret])
        for each in (self.tcp, self.abstract):
            each.setblocking(False)
        os.environ["CANARY_KEY"] = self.secret
        self.facts = {
            "secret_file": str(self.file),
            "port": self.tcp.getsockname()[1],
            "abstract": f"canary-{self.secret}",
            "pid": self.process.pid,
            "parent": os.getpid(),
            "stray": str(self.stray),
        }

    def preamble(self) -> str:
        """What every hostile candidate is told, so that it need not guess."""
        return f"CANARY = {self.facts!r}\n"

    def check(self, seen: str) -> None:
        """Nothing was touched, and the secret is not in what the world saw."""
        assert self.file.read_text() == self.secret and sorted(os.listdir(self.file.parent)) == ["canary.txt"]
        assert not self.stray.exists()
        assert self.process.poll() is None
        for each in (self.tcp, self.abstract):
            with pytest.raises(BlockingIOError):
                each.accept()
        assert self.secret not in seen.replace(f"canary-{self.secret}", "").replace(str(self.stray), "")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.tcp.close()
        self.abstract.close()
        del os.environ["CANARY_KEY"]


@pytest.fixture(scope="module")
def canaries(tmp_path_factory):
    found = Canaries(tmp_path_factory.mktemp("canary"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def normal():
    """What the honest candidate's trial gives."""
    return play(HONEST)
