"""Writes pickles that mean harm and reads them as checkpoints; run by test_hostile_pickles.py in a process of its own.

python hostile_pickles.py FOLDER COUNT      prints how many were read and how many refused
"""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import functools
import importlib
import itertools
import operator
import os
import pathlib
import pickle
import pickletools
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_medmerge import MedMergeError, Source

# What only a pickle could ask for while a file is read. Python tells it before it happens, also where C does it.
WATCHED = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir", "shutil.rmtree",
    "shutil.copyfile", "subprocess.Popen", "socket.connect", "socket.bind", "pty.spawn", "function.__new__",
}  # fmt: skip
OPERATIONS = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"c__builtin__\nexec\n", b"cposix\nsystem\n", b"X\x04\0\0\0true", b"\x85",
    b"cos\nsystem\nX\x04\0\0\0true\x85R", b"R", b"\x81", b"b", b"(", b"t", b"d", b"}", b"]", b"a", b"e", b"s", b"u",
    b"0", b"2", b"1", b"h\x00", b"q\x01", b"Q", b"N", b"K\x05", b"ios\nsystem\n", b"o", b"\x93", b"\x92", b"P1\n",
    b"\x8c\x02os", b"I1\n", b"F1.0\n", b"\x82\x01", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f",
    b"\x8a\xff", b".", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b")R", b"}b",
    b"cargparse\nNamespace\n",
)  # fmt: skip
STATE = {"conv.weight": torch.ones(2, 1, 3, 3), "conv.bias": torch.zeros(2)}


class Call:
    """Pickled, it is a call of anything with anything, and what is done to the result."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None, items: Any = None, pairs: Any = None) -> None:
        self.parts = function, arguments, state, items, pairs

    def __call__(self) -> None:
        """A pickle may call what a call returned; the pickler wants to see that it can be called."""

    def __reduce__(self) -> tuple[Any, ...]:
        function, arguments, state, items, pairs = self.parts
        return function, arguments, state, iter(items) if items else None, iter(pairs) if pairs else None


class Hostile:
    """What makes a marker if anything of it is run, in all kinds of surroundings."""

    def __init__(self, marker: Path, rng: random.Random) -> None:
        self.marker, self.rng = str(marker), rng
        self.command = f"touch {marker}"
        self.code = f"open({self.marker!r}, 'w').close()"

    def harm(self) -> Call:
        """A call that does harm at once."""
        command, code, marker = self.command, self.code, self.marker
        return self.rng.choice(
            [
                Call(os.system, command),
                Call(builtins.eval, code),
                Call(builtins.exec, code),
                Call(builtins.open, marker, "w"),
                Call(builtins.compile, code, "x", "exec"),
                Call(builtins.__import__, "antigravity"),
                Call(Call(builtins.getattr, Call(importlib.import_module, "os"), "system"), command),
                Call(subprocess.Popen, ["touch", marker]),
                Call(subprocess.check_call, ["touch", marker]),
                Call(shutil.copy, sys.executable, marker),
                Call(pathlib.Path.touch, pathlib.PurePosixPath(marker)),
                Call(Call(functools.partial, os.system, command)),
                Call(functools.reduce, builtins.eval, [code, {}]),
                Call(Call(operator.methodcaller, "system", command), Call(importlib.import_module, "os")),
                Call(list, Call(builtins.map, builtins.exec, [code])),
                Call(torch.load, marker),
                Call(torch.save, {}, marker),
                Call(torch.hub.load, "a/b", "c"),
                Call(np.save, marker, np.zeros(1)),
                Call(pickle.loads, pickle.dumps(Call(os.system, command))),
                Call(builtins.setattr, torch.Tensor, "sum", builtins.eval),
                Call(builtins.type, "X", (), {}),
            ]
        )

    def surrounded(self, depth: int = 0) -> Any:
        """It within what is harmless, of every kind that checkpoints have."""
        inner = self.harm() if depth > 2 or self.rng.random() < 0.4 else self.surrounded(depth + 1)
        ways: list[Callable[[], Any]] = [
            lambda: inner,
            lambda: [1, inner],
            lambda: {"a": inner},
            lambda: (inner,),
            lambda: argparse.Namespace(lr=inner),
            lambda: collections.OrderedDict(a=inner),
            lambda: collections.deque([inner]),
            lambda: functools.partial(print, inner),
            lambda: Call(collections.defaultdict, os.system, pairs=[(self.command, inner)]),
            lambda: Call(collections.OrderedDict, state={"__class__": inner, "x": 1}),
            lambda: Call(argparse.Namespace, state={"__dict__": inner}),
            lambda: Call(collections.deque, inner, items=[inner, inner]),
            lambda: Call(np.dtype, inner),
            lambda: Call(torch.Tensor, inner, state=(inner,)),
            lambda: Call(torch.nn.Parameter, inner),
            lambda: Call(torch._utils._rebuild_tensor_v2, inner, 0, (1,), (1,), False, inner),
            lambda: Call(torch._utils._rebuild_parameter, inner, False, inner),
            lambda: Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (self.command,), {}),
            lambda: Call(torch._tensor._rebuild_from_type_v2, builtins.eval, dict, (self.code,), {}),
            lambda: Call(datetime.datetime, inner),
        ]
        return self.rng.choice(ways)()

    def operations(self, data: bytes) -> bytes:
        """A pickle with operations put in, taken out and doubled."""
        places = [place for _, _, place in pickletools.genops(data) if place is not None] + [len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(places)]
        for _ in range(self.rng.choice([1, 2, 4, 16])):
            at, kind = self.rng.randrange(1, len(pieces)), self.rng.randrange(5)
            if kind == 3 and len(pieces) > 3:
                del pieces[at]
            else:
                pieces.insert(at, self.rng.choice(OPERATIONS if kind < 3 else pieces))
        return b"".join(pieces)

    def noise(self, data: bytes) -> bytes:
        """A pickle that begins with sixty operations at random."""
        letters = b"()]}.cRbsuaeNKq0120t\x81\x85\x86\x87\x93X\x8c"
        return data[:2] + bytes(self.rng.choice(letters) for _ in range(60)) + data[2:]

    def write(self, path: Path, number: int) -> None:
        """One file, of four kinds in turns."""
        content: dict[str, Any] = {"state_dict": STATE, "extra": self.surrounded()}
        if self.rng.random() < 0.3:
            content = {"extra": self.surrounded(), **content}
        kind = number % 4
        if kind < 2:
            torch.save(content, path, _use_new_zipfile_serialization=kind == 0)
            return
        harmless = {"model": STATE, "n": argparse.Namespace(a=1)} if kind == 2 else STATE
        torch.save(content if kind == 2 and self.rng.random() < 0.5 else harmless, path)
        rewrite(path, self.noise if kind == 3 and self.rng.random() < 0.5 else self.operations)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the pickle within a torch archive, whose checksums agree afterwards."""
    with zipfile.ZipFile(path) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def main(folder: Path, count: int) -> None:
    """Write and read one file after the other."""
    path, marker = folder / "hostile.pt", folder / "marker"
    hostile = Hostile(marker, random.Random(0))
    events: list[str] = []
    reading = False
    sys.addaudithook(lambda event, _: events.append(event) if reading and event in WATCHED else None)
    read = refused = 0
    slowest = 0.0
    for number in range(count):
        hostile.write(path, number)
        start, reading = time.perf_counter(), True
        try:
            tensors, told = Source.from_file(path).tensors, ""
            read += 1
        except MedMergeError as error:
            tensors, told = {}, str(error)
            refused += 1
        reading = False
        slowest = max(slowest, time.perf_counter() - start)
        assert not events, (number, events)
        assert "weights_only=False" not in told, (number, told)
        assert not marker.exists(), number
        for tensor in tensors.values():
            assert type(tensor) is torch.Tensor, (number, type(tensor))
            assert not tensor.is_floating_point() or torch.isfinite(tensor).all(), number
    sys.stdout.write(f"{read} {refused} {slowest:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
