"""Checkpoints with more than tensors in them: what else was pickled is replaced by stand-ins, and never run.

torch's reader for weights knows tensors and plain containers, and stops at anything else: a NumPy scalar of the best
score, a Namespace of options, a class that is not even installed. Such a pickle is looked through without running it,
and read by the same reader with an inert stand-in under each name that it does not know. A stand-in takes every
argument and keeps none.
"""

from __future__ import annotations

import pickle
import pickletools
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.sources.checkpoint.archive import reason

EXPECTED = "plain weights (save network.state_dict() where you trust the file)"
# A list of losses may be long; nothing else in the pickle of a checkpoint is.
MOST_PICKLED = 2**28
# torch keeps the names that its reader knows for the whole process.
_LOCK = threading.Lock()
# Names that no checkpoint needs, and that only a pickle which means harm has: refused, although they would not be run.
_HARMFUL_MODULES = {
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "runpy", "importlib", "imp", "pty", "ctypes", "code",
    "codeop", "webbrowser", "platform", "multiprocessing", "asyncio", "signal", "commands", "popen2", "pip", "timeit",
    "bdb", "pdb", "cProfile", "profile", "idlelib", "urllib", "http", "ftplib", "smtplib", "requests", "pickle",
    "_pickle", "marshal", "types", "_posixsubprocess", "_thread", "gc", "inspect", "site", "venv", "shelve",
}  # fmt: skip
_HARMLESS_BUILTINS = {
    "int", "float", "complex", "bool", "str", "bytes", "set", "frozenset", "list", "dict", "tuple", "slice",
    "range", "object", "type", "NoneType", "Ellipsis", "print", "len", "sum", "max", "min", "abs", "round", "sorted",
}  # fmt: skip
# What is filled after it was made, so that a stand-in has to be a container of torch's reader.
_MAPPINGS = {"collections.defaultdict", "builtins.dict", "monai.utils.type_conversion.defaultdict"}
_SEQUENCES = {"collections.deque", "builtins.list"}
_TENSORS = {"monai.data.meta_tensor.MetaTensor"}


class _Named(type):
    """A class that shows the name it stands for, by which torch's errors tell which one it was."""

    origin: str

    def __repr__(cls) -> str:
        return f"<{cls.origin}>"


class StandIn(metaclass=_Named):
    """Stands for an object of a class that is not read: takes anything, keeps and does nothing."""

    __slots__ = ()
    origin = "nothing"

    def __new__(cls, *arguments: object, **keywords: object) -> StandIn:
        return object.__new__(cls)

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _MappingStandIn(metaclass=_Named):
    """Stands for a dictionary of another kind: the one that torch's reader fills, and gives attributes."""

    origin = "nothing"

    def __new__(cls, *arguments: object, **keywords: object) -> Any:
        return OrderedDict()


class _SequenceStandIn(metaclass=_Named):
    """Stands for a list of another kind."""

    origin = "nothing"

    def __new__(cls, *arguments: object, **keywords: object) -> Any:
        return []


def read_pickled(path: Path, mapped: bool) -> Any:
    """What a file of torch holds: tensors, plain containers, and stand-ins for all else.

    Args:
        path: of a torch archive, or of a file of torch's older form.
        mapped: whether large tensors can stay on disk.

    Raises:
        UnsafeCheckpointError: the file is damaged, names what would do harm, or has what no stand-in can serve.
    """
    try:
        return _load(path, mapped)
    except pickle.UnpicklingError as error:
        first = error
    # Unpickling damaged bytes can raise nearly anything; whatever it is, this file is not plain weights.
    except Exception as error:
        raise UnsafeCheckpointError(EXPECTED, reason(error), path.name) from error
    unknown = sorted(_names(path))
    if not unknown:
        raise UnsafeCheckpointError(EXPECTED, _without_advice(first), path.name) from first
    for name in unknown:
        _refuse_harm(name, path)
    stand_ins = {name: _stand_in(name) for name in unknown}
    # Which containers a class is like shows only when the reader fills one: at most two changes for each class.
    for _ in range(2 * len(stand_ins) + 1):
        known: list[Any] = [(stand_in, name) for name, stand_in in stand_ins.items()]
        try:
            with _LOCK, torch.serialization.safe_globals(known):
                return _load(path, mapped)
        except Exception as error:
            failed = next((name for name in unknown if f"<{name}>" in str(error)), "")
            other = _other_kind(failed, stand_ins.get(failed), str(error))
            if other is None:
                found = f"{failed or ', '.join(unknown[:3])}, for which nothing can stand"
                raise UnsafeCheckpointError(EXPECTED, found, path.name) from error
            stand_ins[failed] = other
    raise UnsafeCheckpointError(EXPECTED, f"{unknown[0]}, for which nothing can stand", path.name)


def _load(path: Path, mapped: bool) -> Any:
    with warnings.catch_warnings():
        # Of other protocols of pickle: what comes is read or refused all the same.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _stand_in(name: str) -> Any:
    if name in _TENSORS:
        return torch.Tensor
    base = _MappingStandIn if name in _MAPPINGS else _SequenceStandIn if name in _SEQUENCES else StandIn
    return _derived(name, base)


def _derived(name: str, base: Any) -> Any:
    return type("StandIn", (base,), {"origin": name, "__slots__": ()})


def _other_kind(name: str, stand_in: Any, message: str) -> Any:
    """A stand-in of the kind of container that the reader's message asks for; None if it asks for something else."""
    if not name or not (isinstance(stand_in, type) and issubclass(stand_in, StandIn)):
        return None
    if "SETITEM" in message:
        return _derived(name, _MappingStandIn)
    return _derived(name, _SequenceStandIn) if "append to" in message or "extend" in message else None


def _refuse_harm(name: str, path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    harmless = attribute in _HARMLESS_BUILTINS if module == "builtins" else module.split(".")[0] not in _HARMFUL_MODULES
    if not harmless:
        raise UnsafeCheckpointError(EXPECTED, f"{name}, which no checkpoint needs; nothing of it was run", path.name)


def _names(path: Path) -> set[str]:
    """Classes and functions that a file's pickle names and torch's reader does not know, found without running it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                member = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
                if archive.getinfo(member).file_size > MOST_PICKLED:
                    raise UnsafeCheckpointError(EXPECTED, f"more than {MOST_PICKLED:,} pickled bytes", path.name)
                with archive.open(member) as file:
                    found = _globals(file, path)
        else:
            with path.open("rb") as file:
                # The older form: a magic number, a version and the machine before what was saved.
                for _ in range(3):
                    _globals(file, path)
                found = _globals(file, path)
    except UnsafeCheckpointError:
        raise
    except Exception as error:
        raise UnsafeCheckpointError(EXPECTED, reason(error), path.name) from error
    known = torch._weights_only_unpickler._get_allowed_globals()
    return {name for name in found if name not in known}


def _globals(file: IO[bytes], path: Path) -> set[str]:
    """Names in one pickle, by those of Python 3."""
    found = set()
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            found.add(f"{module}.{name}")
        elif operation.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            what = "a pickle of another protocol than torch.save's: save it again without pickle_protocol"
            raise UnsafeCheckpointError(EXPECTED, what, path.name)
    return found


def _without_advice(error: Exception) -> str:
    """What torch's reader says, without its advice to trust the file."""
    text = str(error)
    marked = text.partition("WeightsUnpickler error: ")[2] or text
    first = marked.strip().splitlines()[0] if marked.strip() else ""
    return f"{type(error).__name__} ({first[:160]})" if "weights_only" not in first else type(error).__name__
