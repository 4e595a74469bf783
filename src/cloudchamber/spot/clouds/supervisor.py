"""The local cloud's own process, which outlives the scheduler: a socket that takes its verbs, and the S3 server if none is given.

Started by ``LocalCloud`` as ``python -m cloudchamber.spot.clouds.supervisor FOLDER``. One process serves a folder; a second one
leaves at once. Left alone for longer than ``linger_s`` it shuts its instances down, saves the newest checkpoint to the folder
and ends; so it does when told to close.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec

from cloudchamber.core.errors import ChamberError, MissingExtra
from cloudchamber.core.messages import decode

from .checkpoint import Checkpoint
from .checkpoints import CheckpointStore
from .instances import World
from .zones import Zones

LOCKED = 75  # exit status: another process serves this folder already
VERBS = ("status", "wait", "launch", "start", "terminate", "probe", "copy", "fetch", "close")


class Supervisor:
    """Serves one scheduler after the other.

    Parameters
    ----------
    folder : Path
        Holds ``world``; gets ``address`` once schedulers may connect.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = decode((folder / "world").read_bytes(), World)
        reap(self.world.run)
        self.store = self._open_store()
        self.zones = Zones(self.world, folder, self.store)

    def serve(self) -> None:
        """Take schedulers until told to close, or left alone."""
        home = Path(tempfile.mkdtemp(prefix="chamber-"))  # a socket's path must be short
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(home / "cloud"))
                listener.listen()
                listener.settimeout(self.world.linger_s)
                _replace(self.folder / "address", str(home / "cloud").encode())
                threading.Thread(target=self.zones.run_clock, daemon=True).start()
                while not self.zones.is_closing:
                    try:
                        scheduler, _ = listener.accept()
                    except TimeoutError:
                        break
                    with scheduler:
                        scheduler.settimeout(None)
                        self._attend(scheduler)
        finally:
            (self.folder / "address").unlink(missing_ok=True)
            shutil.rmtree(home)
        with self.zones.changed:
            self.zones.close()
        self._save()

    def _attend(self, scheduler: socket.socket) -> None:
        """Answer one scheduler's requests until it goes, however it goes."""
        zones = self.zones
        with zones.changed:
            zones.is_attended = zones.was_attended = True
        try:
            with scheduler.makefile("rwb") as stream:
                for line in stream:
                    stream.write(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
                    stream.flush()
        except (OSError, ValueError):
            pass  # it was killed, perhaps in the middle of a line: the next one finds everything in the status
        finally:
            with zones.changed:
                zones.is_attended, zones.wanted = False, None
                zones.changed.notify_all()

    def _answer(self, request: list[Any]) -> dict[str, Any]:
        verb, args = request[0], request[1:]
        try:
            if verb not in VERBS:
                raise ValueError(f"no verb {verb!r}; there are {', '.join(VERBS)}.")
            with self.zones.changed:
                return {"value": getattr(self.zones, verb)(*args)}
        except (ChamberError, OSError, ValueError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _open_store(self) -> CheckpointStore:
        world = self.world
        prefix = f"chamber-{world.run}"
        if world.endpoint_url is not None:
            store = CheckpointStore(world.regions, prefix, world.endpoint_url)
            store.create()
            return store
        try:
            from moto.server import ThreadedMotoServer
        except ImportError:
            raise MissingExtra("a local cloud without an S3 endpoint needs moto's server", "localcloud") from None
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        store = CheckpointStore(
            world.regions,
            prefix,
            f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        store.create()
        saved = self.folder / "saved"
        if saved.exists():
            checkpoint = msgspec.json.decode((saved / "manifest").read_bytes(), type=Checkpoint)
            store.upload(saved / "files", checkpoint.zone, checkpoint.version)
        return store

    def _save(self) -> None:
        """Keep the newest checkpoint beyond the life of the S3 server in this process."""
        newest = self.store.newest()
        if self.world.endpoint_url is None and newest is not None:
            new, saved = self.folder / "saved.new", self.folder / "saved"
            shutil.rmtree(new, ignore_errors=True)
            self.store.download(newest, new / "files")
            (new / "manifest").write_bytes(msgspec.json.encode(newest))
            shutil.rmtree(saved, ignore_errors=True)
            new.rename(saved)


def reap(run: str) -> int:
    """SIGKILL every process of this cloud's instances that an earlier supervisor left behind; return how many there were."""
    mark, found = f"CHAMBER_RUN={run}/".encode(), 0
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if any(each.startswith(mark) for each in entry.read_bytes().split(b"\0")):
                os.kill(int(entry.parent.name), signal.SIGKILL)
                found += 1
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or belongs to somebody else and so not to us
    return found


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


def main(folder: Path) -> int:
    """Serve the folder; returns the exit status."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # held until the process is gone
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return LOCKED
    (folder / "address").unlink(missing_ok=True)
    Supervisor(folder).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
