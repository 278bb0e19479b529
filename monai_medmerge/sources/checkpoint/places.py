"""Which file is meant: `FILE`, `FILE::PART`, the folder of a bundle, or one as model hubs and trainers lay it out."""

from __future__ import annotations

from pathlib import Path

from monai_medmerge.errors import UnsafeCheckpointError

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
# What keeps weights in a folder, best first.
BUNDLE_WEIGHTS = ("models/model.safetensors", "models/model.pt", "models/model.pth")
HUB_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth",
    "checkpoint_final.pth", "mp_rank_00_model_states.pt",
)  # fmt: skip
SUFFIXES = {".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".th", ".model", ".tar"}
# Folders that hold weights below a folder that people name.
BELOW = ("", "models", "checkpoints", "snapshots/*", "fold_*", "global_step*")
FOREIGN = {
    "saved_model.pb": "a SavedModel of TensorFlow",
    ".metadata": "shards of torch.distributed.checkpoint: make one file with dcp_to_torch_save",
    "adapter_config.json": "an adapter (PEFT) without the network: merge_and_unload() and save the whole",
}
SEPARATOR = "::"


def split_part(path: str | Path) -> tuple[Path, str | None]:
    """A path and the part of it that is meant, if one is named behind `::`.

    Args:
        path: as a command line or a configuration has it.

    Example:
        >>> split_part("run/last.ckpt::teacher")[1], split_part("run/last.ckpt")[1]
        ('teacher', None)
    """
    text = str(path)
    if SEPARATOR not in text or Path(text).exists():
        return Path(path), None
    file, _, part = text.partition(SEPARATOR)
    return Path(file), part or None


def plain_name(path: Path) -> str:
    """A file's name without what says of which kind it is.

    Args:
        path: of a file.

    Example:
        >>> plain_name(Path("resnet_v1.2.pt")), plain_name(Path("model.safetensors.index.json"))
        ('resnet_v1.2', 'model')
        >>> plain_name(Path("best.pth.tar")), plain_name(Path("v1.2"))
        ('best', 'v1.2')
    """
    name = path.name
    for suffix in (*INDEX_SUFFIXES, ".pth.tar", ".pt.tar", ".ckpt.tar"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem if path.suffix.lower() in SUFFIXES else name


def file_in(folder: Path) -> Path:
    """The file of weights in a folder: of a bundle, of a hub's layout, or the only one there is.

    Args:
        folder: an existing one.

    Raises:
        UnsafeCheckpointError: there is none, or there are several, which are named.
    """
    for name in BUNDLE_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found: list[Path] = []
    for pattern in BELOW:
        places = [folder] if not pattern else sorted(place for place in folder.glob(pattern) if place.is_dir())
        for place in places:
            found += _in_one(place)
        if found:
            break
    if len(found) == 1:
        return found[0]
    expected = f"a folder with one file of weights, such as {BUNDLE_WEIGHTS[1]}"
    if not found:
        what = next((what for name, what in FOREIGN.items() if (folder / name).exists()), "none of them")
        raise UnsafeCheckpointError(expected, what, folder.name)
    names = ", ".join(path.relative_to(folder).as_posix() for path in found[:6]) + (", ..." if found[6:] else "")
    raise UnsafeCheckpointError(f"{expected}; give one file", f"{len(found)} files: {names}", folder.name)


def _in_one(folder: Path) -> list[Path]:
    """The file of a usual name, or all that may be checkpoints."""
    usual = next((folder / name for name in HUB_WEIGHTS if (folder / name).is_file()), None)
    if usual is not None:
        return [usual]
    indexes = sorted(path for path in folder.iterdir() if path.name.endswith(INDEX_SUFFIXES))
    if indexes:
        return indexes
    foreign = any((folder / name).exists() for name in FOREIGN)
    files = [] if foreign else sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    # A bundle often has its weights as TorchScript and as tensors; the same in two formats counts once.
    by_name = {plain_name(path): path for path in sorted(files, key=lambda path: path.suffix == ".safetensors")}
    return list(by_name.values())
