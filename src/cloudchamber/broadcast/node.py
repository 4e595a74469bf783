"""One region of a real broadcast: a process that receives partitions over TCP and passes them on at capped rates.

Run by :mod:`cloudchamber.broadcast.runtime` as ``python -m cloudchamber.broadcast.node``; it is told what to do by lines of JSON on
standard input and says what became of it by lines of JSON on standard output.
"""

from __future__ import annotations

import hashlib
import json
import queue
import random
import socket
import struct
import sys
import threading
import time
from typing import Any

CHUNK = 16_384
HEADER = struct.Struct("!II")  # partition, bytes that follow
Frame = tuple[int, bytes]


class TokenBucket:
    """Lets bytes through at a rate; what was missed in the last ``burst_s`` may be made up."""

    def __init__(self, bytes_s: float, burst_s: float = 0.05) -> None:
        self.bytes_s = bytes_s
        self.burst_s = burst_s
        self.at = 0.0

    def take(self, count: int) -> None:
        """Wait until that many bytes may go."""
        now = time.monotonic()
        self.at = max(self.at, now - self.burst_s) + count / self.bytes_s
        if self.at > now:
            time.sleep(self.at - now)


class Link(threading.Thread):
    """Sends what is put into it to one other region, at its rate."""

    def __init__(self, port: int, partitions: list[int], part_bytes: int, bytes_s: float) -> None:
        super().__init__(daemon=True)
        self.partitions = frozenset(partitions)
        self.waiting: queue.Queue[Frame] = queue.Queue()
        self.left = len(partitions) * part_bytes
        self.bucket = TokenBucket(bytes_s)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)

    def run(self) -> None:
        """Send until every byte of every partition of this link has gone."""
        with self.socket:
            while self.left > 0:
                partition, data = self.waiting.get()
                self.bucket.take(len(data))
                self.socket.sendall(HEADER.pack(partition, len(data)) + data)
                self.left -= len(data)


def content(seed: int, partition: int, size: int) -> bytes:
    """Return a partition's bytes, the same in every process."""
    return random.Random(f"{seed}/{partition}").randbytes(size)


def digests(seed: int, partitions: int, size: int) -> list[str]:
    """Return the SHA-256 of every partition."""
    return [hashlib.sha256(content(seed, partition, size)).hexdigest() for partition in range(partitions)]


class Node:
    """A region: its links, and what it has received so far."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.links: list[Link] = []
        self.received = [0] * task["partitions"]
        self.hashes = [hashlib.sha256() for _ in range(task["partitions"])]
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def connect(self, ports: dict[str, int]) -> list[socket.socket]:
        """Open the links out, and accept those in."""
        for each in self.task["out"]:
            self.links.append(Link(ports[each["to"]], each["partitions"], self.task["part_bytes"], each["bytes_s"]))
        incoming = [self.listener.accept()[0] for _ in range(self.task["links_in"])]
        for link in self.links:
            link.start()
        return incoming

    def give(self, partition: int, data: bytes) -> None:
        """Hand a piece to every link that carries its partition."""
        for link in self.links:
            if partition in link.partitions:
                link.waiting.put((partition, data))

    def send_all(self) -> None:
        """Hand out all that the source has."""
        size = self.task["part_bytes"]
        for partition in range(self.task["partitions"]):
            data = content(self.task["seed"], partition, size)
            for start in range(0, size, CHUNK):
                self.give(partition, data[start : start + CHUNK])

    def receive(self, incoming: socket.socket) -> None:
        """Take pieces in and hand them on at once, until the sender closes."""
        with incoming, incoming.makefile("rb") as stream:
            while header := stream.read(HEADER.size):
                partition, size = HEADER.unpack(header)
                data = stream.read(size)
                if len(data) < size:
                    raise ConnectionError("a region upstream ended in the middle of a piece")
                self.give(partition, data)
                self.received[partition] += size
                self.hashes[partition].update(data)

    def result(self) -> dict[str, Any]:
        """Return when all had arrived, and what it was."""
        return {"finished_s": time.monotonic(), "received": self.received, "sha256": [each.hexdigest() for each in self.hashes]}


def main() -> None:
    """Carry out one broadcast."""
    node = Node(json.loads(sys.stdin.readline()))
    _say({"port": node.listener.getsockname()[1]})
    incoming = node.connect(json.loads(sys.stdin.readline())["ports"])
    _say({"ready": True})
    sys.stdin.readline()  # go
    receivers = [threading.Thread(target=node.receive, args=(each,), daemon=True) for each in incoming]
    for receiver in receivers:
        receiver.start()
    if node.task["is_source"]:
        node.send_all()
    for receiver in receivers:
        receiver.join()
    _say(node.result())
    for link in node.links:
        link.join()


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
