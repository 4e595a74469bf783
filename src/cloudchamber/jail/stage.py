"""What a jail can see: the interpreter, the declared libraries, the Protocol's model, its policies, and the core files they import.

Nothing else of the package is there: no simulator, no workload, no study. The files are copied to a folder in the user's cache that is
named after its content.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from cloudchamber.core.errors import InputError

PACKAGE = "cloudchamber"
ALWAYS = (
    "cloudchamber",
    "cloudchamber.core",
    "cloudchamber.core.candidate",
    "cloudchamber.core.errors",
    "cloudchamber.core.messages",
    "cloudchamber.core.policy",
    "cloudchamber.core.source",
    "cloudchamber.jail",
    "cloudchamber.jail.inside",
    "cloudchamber.jail.walls",
    "cloudchamber.jail.wire",
    "cloudchamber.jail.limits",
)
CORE = ("errors", "messages", "policy", "candidate", "jit", "source")  # what policies and models may import of core


@dataclass(frozen=True)
class Stage:
    """A staged Protocol.

    Parameters
    ----------
    folder : Path
        Holds the staged files below ``lib``, and a folder of compiled kernels per user.
    protocol : str
        ``module:Name``.
    modules : tuple of str
        The policy modules, imported by the zygote.
    libraries : tuple of str
    places : tuple of Path
        Library files and folders, each to be seen at ``/site/<name>``.
    """

    folder: Path
    protocol: str
    modules: tuple[str, ...]
    libraries: tuple[str, ...]
    places: tuple[Path, ...]


@cache
def stage(protocol: type, libraries: tuple[str, ...]) -> Stage:
    """Copy what a Protocol's candidates may see.

    Raises
    ------
    InputError
        If the Protocol is not in a module of its own, that module imports more than core and libraries, or a library is not installed.
    """
    home = protocol.__module__
    files: dict[str, tuple[str, bytes]] = {}
    policies: tuple[str, ...] = ()
    for name in ALWAYS:
        files.update(_file_of(name))
    queue = [home]
    parent = home.rpartition(".")[0]
    if parent and importlib.util.find_spec(f"{parent}.policies") is not None:
        folder = Path(str(_origin(f"{parent}.policies"))).parent
        policies = tuple(f"{parent}.policies.{each.stem}" for each in sorted(folder.glob("*.py")) if each.stem != "__init__")
        queue += [f"{parent}.policies", *policies]
    while queue:
        name = queue.pop()
        if name in files:
            continue
        files.update(_file_of(name))
        queue += [each for each in _imports(name) if each not in files and _is_allowed(each, home, policies)]
    for name in list(files):  # the packages around each module
        parts = name.split(".")
        for i in range(1, len(parts)):
            files.update(_file_of(".".join(parts[:i])))
    found = tuple(dict.fromkeys(library for library in libraries if _distribution(library) is not None))
    missing = [library for library in libraries if library not in found]
    if missing:
        raise InputError(
            f"the jail of {protocol.__name__} needs {', '.join(missing)}, not installed here: pip install {' '.join(missing)}."
        )
    return Stage(_copied(files), f"{home}:{protocol.__qualname__}", policies, found, _places(("msgspec", "numpy", *found)))


def _origin(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a script, or a module made by hand
        spec = None
    return spec.origin if spec is not None else None


def _file_of(name: str) -> dict[str, tuple[str, bytes]]:
    origin = _origin(name)
    if origin is None or not origin.endswith(".py"):
        module = sys.modules.get(name)
        origin = inspect.getsourcefile(module) if getattr(module, "__file__", None) is not None and module is not None else None
    if origin is None or name == "__main__":
        raise InputError(
            f"the jail cannot see module {name!r}; put the Protocol and its messages in a model.py that imports core and numpy only."
        )
    is_package = Path(origin).name == "__init__.py"
    return {name: (f"{name.replace('.', '/')}{'/__init__' if is_package else ''}.py", Path(origin).read_bytes())}


def _imports(name: str) -> set[str]:
    """Modules a module imports while it is itself imported."""
    (_, source), found = _file_of(name)[name], set()
    package = name if _file_of(name)[name][0].endswith("__init__.py") else name.rpartition(".")[0]
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{above}.{base}".rstrip(".")
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names if _is_module(f"{base}.{alias.name}")}
    return found


@cache
def _is_module(name: str) -> bool:
    if not name.startswith(PACKAGE):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _is_allowed(name: str, home: str, policies: Iterable[str]) -> bool:
    """Whether a module is to be staged: False for libraries; an error for the package's other rooms."""
    if name.partition(".")[0] not in (PACKAGE, home.partition(".")[0]):
        return False
    if name == home or name in policies or name in ALWAYS or name == f"{home.rpartition('.')[0]}.policies":
        return True
    if name.startswith(f"{PACKAGE}.core."):
        if name.split(".")[2] in CORE:
            return True
    elif (
        (name.endswith(".model") and home.startswith(name.removesuffix("model")))
        or home.startswith(name + ".")
        or not name.startswith(PACKAGE)
    ):  # of the package around it
        return True
    raise InputError(
        f"{home} or a policy next to it imports {name}, which must not be in the jail; models and policies import core and numpy only."
    )


def _copied(files: dict[str, tuple[str, bytes]]) -> Path:
    from platformdirs import user_cache_path

    digest = hashlib.sha256(sys.version.encode())
    for place, data in sorted(files.values()):
        digest.update(f"{place}\0{len(data)}\0".encode() + data)
    root = user_cache_path("cloudchamber") / "jail"
    folder = root / digest.hexdigest()[:24]
    if not (folder / "lib").is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            work = Path(temporary) / "made"
            for place, data in files.values():
                target = work / "lib" / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            for each in (work, *work.rglob("*")):
                each.chmod(0o755 if each.is_dir() else 0o644)
            try:
                work.rename(folder)
            except OSError:  # another process was faster
                if not (folder / "lib").is_dir():
                    raise
    return folder


def _distribution(library: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(library)
    except metadata.PackageNotFoundError:
        return None


@cache
def _places(libraries: tuple[str, ...]) -> tuple[Path, ...]:
    """Top-level files and folders of distributions and of what they need."""
    from packaging.requirements import Requirement

    seen, queue, places = set(), list(libraries), {}
    while queue:
        name = queue.pop()
        distribution = _distribution(name)
        if name.lower() in seen or distribution is None:
            continue
        seen.add(name.lower())
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith((".dist-info", ".pth")):
                places[top] = Path(str(distribution.locate_file(top)))
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return tuple(place.resolve() for place in places.values() if place.exists())


def interpreter() -> Path:
    """The real interpreter behind a virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def system_places() -> tuple[str, ...]:
    """Folders that every interpreter needs: its own prefix and the system's libraries."""
    prefix = str(Path(sys.base_prefix).resolve())
    libraries = sorted(
        {"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", str(sysconfig.get_config_var("LIBDIR") or "/usr/lib")}
    )
    return tuple(dict.fromkeys([prefix, *(place for place in libraries if Path(place).exists())]))


@cache
def site_folders() -> tuple[str, ...]:
    """Folders of the base interpreter and the system in which packages are installed."""
    prefix = Path(sys.base_prefix).resolve()
    found = [*prefix.glob("lib*/python3*/site-packages"), *Path("/usr/lib").glob("python3*/dist-packages")]
    return tuple(str(folder) for folder in found if folder.is_dir())


@cache
def visible_places() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The system's places without the packages installed there, where no mount can hide them: (to be read, to be listed)."""
    hidden = [Path(folder).resolve() for folder in site_folders()]
    readable: list[str] = []
    listable: list[str] = []

    def grant(place: Path) -> None:
        if not any(each.is_relative_to(place) for each in hidden):
            readable.append(str(place))
        elif place not in hidden:  # what is granted on a folder is granted on all below it: so each of its entries alone
            listable.append(str(place))
            for each in sorted(place.iterdir()):
                if not each.is_symlink():
                    grant(each)

    for place in dict.fromkeys(Path(each).resolve() for each in system_places()):
        if not any(place != other and place.is_relative_to(other) for other in map(Path, {*readable, *listable})):
            grant(place)
    return tuple(readable), tuple(listable)


def is_public(path: Path) -> bool:
    """Whether any user may reach and read a path."""
    return all(each.stat().st_mode & (0o001 if each != path else 0o004) for each in (path, *path.parents))


def clear() -> None:
    """Remove every staged folder (they are made again when needed)."""
    from platformdirs import user_cache_path

    shutil.rmtree(user_cache_path("cloudchamber") / "jail", ignore_errors=True)
