"""A jailed policy as the world sees it: the Protocol's methods, each call a message with a deadline."""

from __future__ import annotations

import hashlib
import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from cloudchamber.core.errors import CandidateError, InputError, JailUnavailable
from cloudchamber.core.messages import decode, encode

from .launch import Child
from .limits import Limits
from .wire import BATCH, HEADER, LOAD, MAX_REQUEST, OK, Contract, Load, Raised, frame

RING = 4096
_TICKETS = struct.Struct("<1024I")
_QUICK = struct.pack("@ll", 0, 20_000)  # 20 ms; what takes longer is polled for, together with what it prints
_NAMES = {int(each): each.name for each in signal.Signals}
_CONTROL = re.compile(r"[^\x20-\x7e\n\t\u00a0-\u2027\u2030-\u205f\u2070-\ufdff]")


def cleaned(text: str) -> str:
    """Untrusted text without control characters, escapes, or marks that change the direction of writing."""
    return _CONTROL.sub("", text)


class Session:
    """One candidate, one child, one conversation.

    Parameters
    ----------
    child : Child
    contract : Contract
    limits : Limits

    Raises
    ------
    JailUnavailable
        If the walls could not be put up: a fault of the host.
    """

    def __init__(self, child: Child, contract: Contract, limits: Limits) -> None:
        self._child, self._contract, self._limits = child, contract, limits
        self._tickets: list[int] = []
        self._buffer = b""
        self._printed, self._printed_bytes = b"", 0
        self._left_s = limits.wall_s
        self._error: CandidateError | None = None
        child.channel.setblocking(True)  # with a time limit of the kernel's: a quick answer then costs one system call, not two
        child.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _QUICK)
        self._poll = select.poll()
        self._poll.register(child.channel, select.POLLIN)
        self._poll.register(child.output, select.POLLIN)

    def wait_for_walls(self) -> None:
        """Return once the child has walled itself in."""
        try:
            _, kind, body = self._receive(time.monotonic() + max(60.0, self._limits.call_s))
        except CandidateError as error:
            raise JailUnavailable(f"a jailed process did not come up ({error}).") from None
        if kind != OK:
            self._child.release()
            raise JailUnavailable(f"the walls of the jail do not stand: {decode(body, Raised).message}.")

    def load(self, source: str, name: str | None, path: str) -> None:
        """Run the source and make the policy.

        Raises
        ------
        CandidateError
            Of kind ``input`` if it holds no policy of that name; what comes out of a jail can raise nothing else.
        """
        self._exchange(LOAD, encode(Load(source, name, path)), lambda body: None)

    def call(self, verb: int, args: Sequence[Any]) -> Any:
        """Call one verb.

        Raises
        ------
        CandidateError
            For whatever goes wrong on the candidate's side; every later call raises it again.
        """
        contract = self._contract
        return self._exchange(verb, contract.pack(args), lambda body: contract.result(verb, body))

    def call_many(self, verb: int, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call one verb several times in one frame, for decisions that do not depend on each other."""
        results = self._exchange(
            verb | BATCH, encode([tuple(call) for call in calls]), lambda body: self._contract.result(verb | BATCH, body)
        )
        if len(results) != len(calls):
            raise self._fault("protocol", f"{len(results)} answers to {len(calls)} questions")
        return list(results)

    def _exchange(self, kind: int, body: bytes, read: Callable[[bytes], Any]) -> Any:
        if self._error is not None:
            raise self._error
        if len(body) > MAX_REQUEST:
            raise InputError(f"a question of {len(body)} bytes is over the {MAX_REQUEST} that a jail takes.")
        if not self._tickets:
            self._tickets = list(_TICKETS.unpack(os.urandom(_TICKETS.size)))
        asked, begin = self._tickets.pop(), time.monotonic()
        deadline = begin + min(self._limits.call_s, self._left_s)
        self._send(frame(asked, kind, body), deadline)
        ticket, answer_kind, answer = self._receive(deadline)
        self._left_s -= time.monotonic() - begin
        if ticket != asked or self._buffer:
            raise self._fault("protocol", "an answer to no question, or more answers than questions")
        if answer_kind == OK:
            try:
                return read(answer)
            except InputError as error:
                raise self._fault("type", f"{self._what(kind)} {error}") from None
        try:
            raised = decode(answer, Raised)
        except InputError:
            raise self._fault("protocol", "a malformed frame") from None
        known = raised.kind if raised.kind in ("type", "memory") or (raised.kind == "input" and kind == LOAD) else "crash"
        raise self._fault(known, cleaned(raised.message), raised.traceback)

    def _what(self, kind: int) -> str:
        return "loading it:" if kind == LOAD else f"{self._contract.verbs[kind & ~BATCH]}():"

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while True:
            try:
                sent = self._child.channel.send(view, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                raise self._fault("died", "") from None
            view = view[sent:]
            if not view:
                return
            self._poll.modify(self._child.channel, select.POLLOUT)
            try:
                self._wait(deadline)
            finally:
                self._poll.modify(self._child.channel, select.POLLIN)
            if time.monotonic() > deadline:
                raise self._too_late()

    def _receive(self, deadline: float) -> tuple[int, int, bytes]:
        data, channel = self._buffer, self._child.channel
        self._buffer = b""
        need, is_late, is_first = HEADER.size, False, True
        while True:
            if len(data) >= need:
                length, ticket, kind = HEADER.unpack_from(data)
                if length > self._limits.frame:
                    raise self._fault("protocol", f"an answer of {length} bytes; at most {self._limits.frame} are taken")
                need = HEADER.size + length
                if len(data) >= need:
                    self._buffer = data[need:]
                    return ticket, kind, data[HEADER.size : need]
            if is_late:  # what was there at the deadline counts, what drips in after it does not
                raise self._too_late()
            if not is_first:
                is_late = self._wait(deadline)
            is_first = False
            try:
                more = channel.recv(max(16384, need - len(data)))
            except BlockingIOError:
                continue
            except OSError:
                more = b""
            if not more:
                raise self._fault("died", "")
            data = data + more if data else more

    def _wait(self, deadline: float) -> bool:
        """Return when the channel is ready, and whether that is after the deadline; take in what is printed meanwhile."""
        channel = self._child.channel.fileno()
        while True:
            left = deadline - time.monotonic()
            ready = self._poll.poll(max(0.0, left * 1000))
            if any(fd != channel for fd, _ in ready):
                self._take_output()
            if any(fd == channel for fd, _ in ready):
                return left <= 0
            if left <= 0:
                raise self._too_late()

    def _too_late(self) -> CandidateError:
        limit = "wall_s" if self._left_s < self._limits.call_s else "call_s"
        return self._fault("timeout", f"no answer within the limit {limit} of {getattr(self._limits, limit):g} s")

    def _take_output(self) -> None:
        try:
            data = self._child.output.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(self._child.output)
            return
        self._printed_bytes += len(data)
        self._printed = (self._printed + data)[-RING:]
        if self._printed_bytes > self._limits.output:
            raise self._fault("flood", f"it printed more than {self._limits.output} bytes")

    def _fault(self, kind: str, words: str, traceback: str = "") -> CandidateError:
        """End the child; the error that this and every later call raises.

        Raises
        ------
        JailUnavailable
            If it died because its zygote did.
        """
        while kind != "flood":  # what it printed last
            before = self._printed_bytes
            try:
                self._take_output()
            except (CandidateError, KeyError, ValueError, OSError):
                break
            if self._printed_bytes == before:
                break
        ended = None
        try:
            ended = self._child.end()
        except JailUnavailable:  # with the zygote every child dies: that says nothing about the candidate
            if kind == "died":
                raise
        if kind == "died" and ended is not None and ended.error == "memory":
            kind, words = "memory", f"it held more than the limit memory of {self._limits.memory} bytes"
        if kind == "died":
            kind, words = _cause_of_death(ended.status if ended is not None else 0, ended.cpu_s if ended is not None else 0.0, self._limits)
        feedback = cleaned(f"{traceback}\n{self._printed.decode(errors='replace')}".strip())[-RING:]
        self._error = CandidateError(words, kind, feedback)
        return self._error

    def close(self) -> None:
        """End the child."""
        if self._error is None:
            self._error = CandidateError("the jail was closed", "died")
            self._child.release()

    @property
    def pid(self) -> int | None:
        """The child's pid as its zygote counts."""
        return self._child.pid


def _cause_of_death(status: int, cpu_s: float, limits: Limits) -> tuple[str, str]:
    number = status & 0x7F
    if number == signal.SIGXCPU or (number == signal.SIGKILL and cpu_s >= 0.8 * limits.cpu_s):  # the kernel counts it in two ways
        return "timeout", f"it used {cpu_s:.1f} s of processor time; the limit cpu_s is {limits.cpu_s:g}"
    if number:
        return "died", f"its process was killed by {_NAMES.get(number, f'signal {number}')}"
    return "died", f"its process ended, or closed its channel, in the middle of a call (exit code {status >> 8})"


def proxy_of(session: Any, contract: Contract, source: str, name: str | None) -> Any:
    """An object with the Protocol's verbs, and for each verb ``V`` a ``V_many`` that takes a list of argument tuples.

    Its class is named after the source, so that two candidates never pass for one.
    """
    members: dict[str, Any] = {
        "__slots__": ("_session",),
        "__doc__": f"A jailed {contract.protocol.__name__}.",
        "__module__": f"chamber_jail_{hashlib.sha256(f'{name}:{source}'.encode()).hexdigest()[:16]}",
    }
    for index, verb in enumerate(contract.verbs):
        members[verb] = _method(index)
        members[f"{verb}_many"] = _many(index)
    members["__enter__"] = lambda self: self
    members["__exit__"] = lambda self, *_: self._session.close()
    members["__init__"] = lambda self, session: setattr(self, "_session", session)
    members["__del__"] = lambda self: self._session.close()
    return type(f"Jailed{contract.protocol.__name__}", (), members)(session)


def _method(index: int) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        return self._session.call(index, args)

    return call


def _many(index: int) -> Callable[..., Any]:
    def call_many(self: Any, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        return self._session.call_many(index, calls)  # type: ignore[no-any-return]

    return call_many
