"""Evaluator files of other search tools as studies: ``evaluate(program_path)``, as OpenEvolve, SkyDiscover and ShinkaEvolve take it.

Such an evaluator runs the candidate in its own process, so a candidate can reach its score. The whole evaluator therefore runs in the
jail, where neither can do harm, and every result is marked: the score is not tamper-proof. To have one that is, write a study.
"""

from __future__ import annotations

import ast
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cloudchamber.core.errors import InputError
from cloudchamber.core.outcome import Direction, Metric, Outcome
from cloudchamber.core.registry import jailed
from cloudchamber.core.study import Study, Workload
from cloudchamber.jail.limits import Limits

from . import code
from .foreign import Foreign

MARK = "score not tamper-proof"
LIMITS = Limits(cpu_s=120.0, wall_s=300.0, call_s=120.0)
START, END = "EVOLVE-BLOCK-START", "EVOLVE-BLOCK-END"


@dataclass(frozen=True, kw_only=True)
class EvaluatorRun(Workload):
    """One run of an evaluator; the seed is what ``random`` and ``numpy.random`` are seeded with.

    Parameters
    ----------
    stage : {"smoke", "full"}
    sha256 : str
        Of the evaluator, its files and the program's fixed parts: a run cannot be resumed with others.
    """

    stage: str = "full"
    sha256: str = ""

    @property
    def summary(self) -> str:
        """What it is."""
        return "The evaluator's first stage." if self.stage == "smoke" else "The whole evaluator."


class ImportedStudy(Study):
    """An evaluator file as a study; made by :func:`import_study`."""

    protocol: ClassVar[type] = Foreign
    metrics: ClassVar[tuple[Metric, ...]] = ()
    notes: ClassVar[tuple[str, ...]] = (
        f"{MARK}: evaluator and candidate share a process, so a candidate can reach its score; read the winner.",
    )

    def __init__(self, evaluator: str, program: str, *, metric: str, options: Options) -> None:
        self.evaluator, self.program, self.options = evaluator, program, options
        direction: Direction = "min" if options.is_minimised else "max"
        digest = hashlib.sha256(repr((evaluator, blocks(program)[0], sorted(options.files.items()), options)).encode())
        self._runs = {
            name: EvaluatorRun(name=name, seeds=3, is_generated=True, is_optional=name == "smoke", stage=name, sha256=digest.hexdigest())
            for name in ("full", "smoke")
        }
        # what is a constant of other studies' classes is this object's own
        vars(self).update(
            name=options.name,
            title=f"{options.name}, imported ({MARK})",
            metrics=(Metric(metric, "1", direction, low=-math.inf),),
            libraries=options.libraries,
            __doc__=_text(options.name, evaluator, program),
        )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """None: candidates are programs."""
        return {}

    def workloads(self) -> Mapping[str, Workload]:
        """``full``, and ``smoke``."""
        return self._runs

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Ask the jailed evaluator."""
        report = policy.evaluate(workload.stage, seed)
        said = f"[{MARK}] {report.text}".strip()
        if report.error:
            return Outcome.void(f"the evaluator failed: {report.error[:300]}", said)
        if workload.stage == "smoke":
            return Outcome({self.objective.name: 0.0}, feedback=said)
        value = report.metrics.get(self.objective.name)
        if value is None:
            known = ", ".join(sorted(report.metrics)[:20]) or "none"
            return Outcome.void(f"the evaluator gave no number named {self.objective.name!r}; it gave {known}", said)
        if not math.isfinite(value):
            return Outcome.void(f"{self.objective.name} is {value}; a finite number is needed", said)
        others = ", ".join(f"{name} {number:.6g}" for name, number in sorted(report.metrics.items())[:20])
        return Outcome({self.objective.name: value}, feedback=f"[{MARK}] {others}. {report.text}".strip())

    def ready(self, workload: Any) -> tuple[Workload, str]:
        """Nothing to find; says what the scores are worth."""
        return workload, self.notes[0]

    # what a search asks of a study whose candidates are programs

    def starting_sources(self) -> Mapping[str, str]:
        """The initial program."""
        return {"initial program": self.program}

    def check_source(self, source: str) -> None:
        """Whether a text is a candidate: Python, not too long, and changed between the markers only, where there are any.

        Raises
        ------
        InputError
        """
        if len(source.encode("utf-8", "replace")) > code.MAX_SOURCE:
            raise InputError(f"the program has {len(source)} characters; at most {code.MAX_SOURCE} bytes are taken.")
        code.parsed(source)
        if self.options.is_whole:
            return
        fixed, count = blocks(self.program)
        if count and blocks(source)[0] != fixed:
            raise InputError(f"only the text between # {START} and # {END} may change; leave everything else, markers included, as it was.")

    def open_source(self, source: str, level: str) -> Callable[[], Any]:
        """Constructor of the evaluator with this program inside, in the jail."""
        text = Path(__file__).with_name("foreign_policy.py").read_text(encoding="utf-8")
        given = {
            'EVALUATOR: str = ""': self.evaluator,
            'PROGRAM: str = ""': source,
            "FILES: dict[str, bytes] = {}": dict(self.options.files),
        }
        lines = [f"{line.partition(':')[0]} = {given[line]!r}" if line in given else line for line in text.splitlines()]
        return jailed(self, "\n".join(lines) + "\n", level=level, limits=self.options.limits)


@dataclass(frozen=True)
class Options:
    """How an evaluator is run.

    Parameters
    ----------
    name : str
        Of the study.
    is_minimised : bool
    is_whole : bool
        Whether all of the program may change, markers or not.
    libraries : tuple of str
        Distributions that evaluator and candidates may import.
    files : mapping of str to bytes
        Put next to the evaluator.
    limits : Limits
        Of one run of the evaluator.
    """

    name: str
    is_minimised: bool = False
    is_whole: bool = False
    libraries: tuple[str, ...] = ("numpy",)
    files: Mapping[str, bytes] = field(default_factory=dict)
    limits: Limits = LIMITS


def import_study(
    evaluator_path: str | Path,
    initial_program: str | Path,
    *,
    metric: str = "combined_score",
    is_minimised: bool = False,
    is_whole: bool = False,
    libraries: Sequence[str] = ("numpy",),
    files: Sequence[str | Path] = (),
    limits: Limits | None = None,
) -> ImportedStudy:
    """Return a study whose candidates are programs and whose score is an evaluator file's.

    Parameters
    ----------
    evaluator_path : path-like
        A file with ``evaluate(program_path)`` that returns numbers by name, one number, or an object with ``metrics``; or ShinkaEvolve's
        ``main(program_path, results_dir)``, which writes ``metrics.json``.
    initial_program : path-like
        The program to start from. Where it has ``EVOLVE-BLOCK-START`` and ``-END``, only what is between may change.
    metric : str
        The number to search by.
    is_minimised : bool
    is_whole : bool
        Let everything change, markers or not.
    libraries : sequence of str
        Distributions that evaluator and candidates may import.
    files : sequence of path-like
        Files the evaluator reads from its own folder, or imports.
    limits : Limits, optional
        Of one run of the evaluator. It may start no process and no thread; pools of threads are run in line.

    Raises
    ------
    InputError
        If a file is missing, too large or no Python, or the evaluator has neither function.

    Examples
    --------
    >>> from cloudchamber.evolve.importer import import_study
    >>> study = import_study("evaluator.py", "initial_program.py")  # doctest: +SKIP
    >>> with Search(study, Settings(trials=(1, 1, 2)), budget=Budget(100)) as search:  # doctest: +SKIP
    ...     search.run()
    """
    evaluator, program = _read(evaluator_path), _read(initial_program)
    functions = {node.name for node in code.parsed(evaluator).body if isinstance(node, ast.FunctionDef)}
    if not functions & {"evaluate", "main"}:
        raise InputError(f"{evaluator_path} has neither evaluate(program_path) nor main(program_path, results_dir).")
    code.parsed(program)
    blocks(program)
    extra = {Path(each).name: _bytes(each) for each in files}
    size = len(evaluator) + len(program) + 4 * sum(map(len, extra.values()))
    if size > 900_000:
        raise InputError(f"evaluator, program and files take {size} bytes; the jail takes 900000.")
    stem = Path(evaluator_path).stem
    name = f"import.{Path(evaluator_path).resolve().parent.name if stem in ('evaluator', 'evaluate') else stem}"
    options = Options(name, is_minimised, is_whole, tuple(libraries), extra, limits or LIMITS)
    return ImportedStudy(evaluator, program, metric=metric, options=options)


def blocks(program: str) -> tuple[tuple[str, ...], int]:
    """The text around the marked blocks, markers included, and how many blocks there are.

    Raises
    ------
    InputError
        If a marker has no partner.
    """
    fixed, lines, count, is_open = [], list[str](), 0, False
    for line in program.splitlines():
        if line.strip().startswith("#") and START in line and not is_open:
            fixed.append("\n".join([*lines, line.strip()]))
            lines, is_open, count = [], True, count + 1
        elif line.strip().startswith("#") and END in line and is_open:
            lines, is_open = [line.strip()], False
        elif not is_open:
            lines.append(line.rstrip())
    if is_open:
        raise InputError(f"the program has # {START} without # {END}.")
    return (*fixed, "\n".join(lines).rstrip()), count


def _read(path: str | Path) -> str:
    try:
        return _bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}.") from None


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None


def _text(name: str, evaluator: str, program: str) -> str:
    """The problem in words: the evaluator's own, and its source."""
    words = ast.get_docstring(code.parsed(evaluator)) or "An imported evaluator."
    marked = f" Only the text between # {START} and # {END} may change." if blocks(program)[1] else ""
    return (
        f"{name}: {words}\n\nA candidate is a whole program, which the evaluator below imports or runs by its path.{marked}\n\n"
        f"The evaluator:\n\n{evaluator[:20000]}"
    )
