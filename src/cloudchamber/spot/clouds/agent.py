"""The agent on an instance: fetches the checkpoint, runs the job, uploads what it keeps, and stops it in time.

``LocalCloud`` runs it in a thread per instance; on a real machine it is a program::

    python -m cloudchamber.spot.clouds.agent PLAN.json -- COMMAND...
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cloudchamber.core.errors import InputError

from .checkpoint import Checkpoint, CheckpointError, read_progress
from .checkpoints import CheckpointStore

_POLL_S = 0.02


class Agent:
    """Runs one job on one instance.

    Parameters
    ----------
    store : CheckpointStore
    zone, instance : int
        Where it runs; instances are numbered in order of their launch, which orders the versions they write.
    command : tuple of str
    folder : Path
        Holds the job's ``checkpoint`` directory, its ``log``, and a ``snapshot`` of the former while that is uploaded.
    upload_every_s, grace_s : float
        Real seconds between uploads; from SIGTERM to the end of the machine.
    saw : callable
        Told of every completed upload (a Checkpoint) and of every fault (an exception).
    """

    def __init__(
        self,
        store: CheckpointStore,
        zone: int,
        instance: int,
        command: tuple[str, ...],
        folder: Path,
        *,
        upload_every_s: float,
        grace_s: float,
        saw: Callable[[Checkpoint | Exception], None],
    ) -> None:
        self.store, self.zone, self.instance, self.command, self.folder = store, zone, instance, command, folder
        self.upload_every_s, self.grace_s, self.saw = upload_every_s, grace_s, saw
        self.stop = threading.Event()
        self.checkpoint_dir = folder / "checkpoint"
        self._process: subprocess.Popen[bytes] | None = None
        self._uploads = 0
        self._uploaded: object = None
        self._status: int | None = None
        self._dead_at = float("inf")

    def prepare(self, checkpoint: Checkpoint | None) -> bool:
        """Lay the checkpoint ready, an empty directory for None, and return whether that worked."""
        try:
            if checkpoint is not None:
                self.store.download(checkpoint, self.checkpoint_dir)
            else:
                shutil.rmtree(self.checkpoint_dir, ignore_errors=True)
                self.checkpoint_dir.mkdir(parents=True)
        except OSError as error:
            self.saw(error)
            return False
        self._uploaded = self._look()
        return True

    def spawn(self, environment: Mapping[str, str]) -> None:
        """Start the job's command in a process group of its own."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **environment, "CHAMBER_CHECKPOINT_DIR": str(self.checkpoint_dir)},
            )

    def work(self) -> int | None:
        """Upload now and then until the job ends by itself (its exit status) or ``stop`` is set (None)."""
        assert self._process is not None
        upload_at = time.monotonic() + self.upload_every_s
        while not self.stop.wait(_POLL_S):
            if self._process.poll() is not None:
                return self._finish(self._process.returncode)
            if time.monotonic() >= upload_at:
                self._upload()
                upload_at = time.monotonic() + self.upload_every_s
        return None

    def shut_down(self) -> None:
        """SIGTERM, a last upload, SIGKILL: all within the grace. A job that failed uploads nothing more."""
        if self._process is None:
            return
        self._dead_at = time.monotonic() + self.grace_s
        if self._status is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(self.grace_s)
            except subprocess.TimeoutExpired as error:
                self.saw(error)
            self._signal(signal.SIGKILL)  # also whatever the job left behind in its group
            self._process.wait()
        if not self._status:
            self._upload()

    def _finish(self, status: int) -> int:
        """After a success only the last upload is missing: try until it is complete or the machine goes."""
        self._signal(signal.SIGKILL)
        try:
            if status == 0 and read_progress(self.checkpoint_dir) < 1:
                raise InputError(
                    f"the job exited with status 0 before its work was finished: 'progress' is "
                    f"{read_progress(self.checkpoint_dir):g}, not 1."
                )
        except InputError as error:
            self.saw(error)
            status = 1
        self._status = status
        while status == 0 and not self._upload() and not self.stop.wait(self.upload_every_s):
            pass
        return status

    def _upload(self) -> bool:
        """Upload the directory if it changed; False on a fault, which leaves the previous checkpoint the newest."""
        seen = self._look()
        if seen == self._uploaded:
            return True
        self._uploads += 1
        try:
            self._snapshot()
            done = self.store.upload(
                self.folder / "snapshot", self.zone, f"{self.instance:06d}-{self._uploads:06d}", lambda: time.monotonic() < self._dead_at
            )
        except (CheckpointError, InputError, OSError) as error:
            self.saw(error)
            return False
        self._uploaded = seen
        self.saw(done)
        return True

    def _snapshot(self) -> None:
        """Copy the directory while the job stands still: the state in which a power failure would leave it."""
        assert self._process is not None
        shutil.rmtree(self.folder / "snapshot", ignore_errors=True)
        runs = self._process.poll() is None
        try:
            if runs:
                self._signal(signal.SIGSTOP)
                with contextlib.suppress(ChildProcessError):  # the signal is sent, but a job on another core may still run
                    os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            shutil.copytree(self.checkpoint_dir, self.folder / "snapshot")
        finally:
            if runs:
                self._signal(signal.SIGCONT)

    def _look(self) -> object:
        """Names, sizes and times of all files; differs after any change."""
        found = []
        for path in sorted(self.checkpoint_dir.rglob("*")):
            try:
                stat = path.stat()
            except FileNotFoundError:  # the job renamed it this moment, which is a change
                return object()
            found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
        return found

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):  # gone already, which is what a signal could at most achieve
            os.killpg(self._process.pid, number)
