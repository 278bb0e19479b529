"""Merge files into a file, one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_medmerge.errors import IncompatibleSourcesError, SettingError
from monai_medmerge.methods.applying.mapped import MappedCheckpoints
from monai_medmerge.methods.applying.recipe import BASES, GIVEN, Recipe
from monai_medmerge.methods.applying.writing import write_safetensors
from monai_medmerge.methods.registry import METHODS, get_method
from monai_medmerge.methods.tensors import TensorHeader


def merge_files(
    name: str,
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    base: str | Path | None = None,
    anchor: int = 0,
    statistics: str = "anchor",
    exclude: str | Sequence[str] = (),
    **options: Any,
) -> Path:
    """Merge safetensors files into one, for methods that need only the weights; memory does not grow with their number.

    The result is that of `merge_with` on the same sources, bit for bit. There is no network to say what is wanted:
    every tensor that a file has is merged, names are taken as they are stored, and a head that differs in shape has to
    be excluded, which leaves the anchor's.

    Args:
        name: of a registered method that needs only the weights.
        paths: `.safetensors` files, or the `.safetensors.index.json` of sharded ones.
        output: the `.safetensors` file to write; it appears whole or not at all.
        base: for methods of differences: `anchor` (default), `mean`, or the file that all others were fine-tuned from.
        anchor: index of the file that gives dtypes, integers and, if so wished, running statistics.
        statistics: running statistics of norms: `anchor`'s or the `average`.
        exclude: name patterns of tensors that are the anchor's own.
        options: the method's own.

    Returns:
        The output's path.

    Raises:
        UnsafeCheckpointError: a file is absent, damaged, or holds values that are not finite.
        IncompatibleSourcesError: two files differ in the shape of a tensor, or in whether it holds integers, or share
            no name.
        SettingError: the method or an option is unknown, or the method needs data.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import load_file, save_file
        >>> folder = Path(tempfile.mkdtemp())
        >>> for n in range(2):
        ...     save_file({"weight": torch.full((2,), float(n))}, folder / f"{n}.safetensors")
        >>> path = merge_files("uniform_average", sorted(folder.glob("*.safetensors")), folder / "merged.safetensors")
        >>> load_file(path)["weight"]
        tensor([0.5000, 0.5000])
    """
    known, output = get_method(name), Path(output)
    if not known.streams:
        streaming = ", ".join(sorted(key for key, value in METHODS.items() if value.streams))
        raise SettingError(f"a method that needs only the weights ({streaming})", name, "merge_files")
    if output.suffix != ".safetensors":
        raise SettingError("a .safetensors file to write", f"the suffix {output.suffix!r}", "output")
    given = [] if base is None or base in BASES else [Path(base)]
    sources = [Path(path) for path in paths]
    kind = GIVEN if given else None if base is None else str(base)
    recipe = Recipe(known, [path.name for path in sources], kind, anchor, statistics, exclude, options)
    files = MappedCheckpoints([*sources, *given])
    headers = _agreed_headers(files, recipe)

    def merged(key: str) -> Tensor:
        readers = {n: partial(files.read, n, key) for n in range(len(sources)) if key in files.headers[n]}
        if recipe.excludes(key):
            return recipe.copied(key, readers, headers[key])
        start = partial(files.read, len(sources), key) if given and key in files.headers[-1] else None
        return recipe.tensor(key, readers, headers[key], start)

    settings = {"method": name, "sources": [path.name for path in sources], "anchor": anchor, "statistics": statistics}
    metadata = {"format": "pt", "monai_medmerge": json.dumps(settings | {"options": options}, sort_keys=True)}
    write_safetensors(output, headers, merged, metadata)
    return output


def _agreed_headers(files: MappedCheckpoints, recipe: Recipe) -> dict[str, TensorHeader]:
    """Kind and shape of every tensor of the result, the anchor's where it has the tensor."""
    count = len(recipe.sources)
    agreed = dict(files.headers[recipe.anchor])
    for path, headers in zip(files.paths, files.headers, strict=True):
        if not any(name in headers and not recipe.excludes(name) for name in files.headers[recipe.anchor]):
            raise IncompatibleSourcesError(
                f"names of {files.paths[recipe.anchor].name}, such as {next(iter(agreed), 'none')}",
                f"none of them; {next(iter(headers), 'nothing')}, ...",
                path.name,
            )
    for n, headers in enumerate(files.headers):
        for name, header in headers.items():
            if recipe.excludes(name):
                continue
            # A base lends its values; what no source has is not merged.
            wanted = agreed.setdefault(name, header) if n < count else agreed.get(name, header)
            integers = header.dtype.is_floating_point != wanted.dtype.is_floating_point
            if header.shape != wanted.shape or integers:
                raise IncompatibleSourcesError(
                    f"{wanted.dtype} of shape {wanted.shape}, or the name among those to exclude",
                    f"{header.dtype} of shape {header.shape}",
                    f"{files.paths[n].name}, {name}",
                )
    return agreed
