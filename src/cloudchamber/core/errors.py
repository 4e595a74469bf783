"""Errors a user can act on: each says what was wrong, what was given, what is allowed and what to do."""

from __future__ import annotations


class ChamberError(Exception):
    """Base of every error cloudchamber raises on purpose."""


class InputError(ChamberError, ValueError):
    """A value, file or option given by the user is not usable."""


class UnknownName(InputError, KeyError):
    """A study, policy, workload, dataset or claim with that name does not exist."""

    def __str__(self) -> str:  # KeyError would print the message as a quoted repr
        return str(self.args[0])


class MissingExtra(ChamberError, ImportError):
    """An optional dependency is not installed; the message carries the ``pip install`` line."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(f"{need}: pip install 'cloudchamber[{extra}]'")
        self.extra = extra


class DatasetUnavailable(ChamberError, FileNotFoundError):
    """A dataset could not be found on disk nor fetched from its origin."""


class CandidateError(ChamberError, RuntimeError):
    """A policy raised, timed out or answered with the wrong type: its trial is void.

    Parameters
    ----------
    message : str
    kind : {"crash", "type", "input", "protocol", "timeout", "memory", "died", "flood"}
        What sort of failure; ``input``: its source holds no policy of that name.
    feedback : str
        What the candidate itself wrote, cut and cleaned: untrusted text.
    """

    def __init__(self, message: str, kind: str = "crash", feedback: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.feedback = feedback

    def __reduce__(self) -> tuple[type[CandidateError], tuple[str, str, str]]:
        return type(self), (str(self), self.kind, self.feedback)


class JailUnavailable(ChamberError, OSError):
    """The host cannot jail a candidate now, or at that level: no fault of the candidate, so its trial is tried again."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown(kind: str, name: str, allowed: object) -> UnknownName:
    """Return the error for a name that does not exist, with the nearest that do."""
    import difflib

    names = sorted(str(each) for each in allowed)  # type: ignore[attr-defined]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}."
    return UnknownName(f"no {kind} named {name!r}; {hint}")
