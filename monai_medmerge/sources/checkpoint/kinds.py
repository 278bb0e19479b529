"""What a file is, by its bytes: its name says little, and much that is no checkpoint is called one."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.sources.checkpoint.archive import reason

Kind = Literal["safetensors", "torch archive", "torch, legacy", "index"]

# The long that begins every file of torch before 1.6, as pickle writes it.
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Where, which bytes, and what a file with them is: in the order of looking.
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a pointer of git-lfs: fetch the file itself with git lfs pull"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5, as Keras and MATLAB write: torch weights are needed"),
    (0, b"\x93NUMPY", "a NumPy array: torch.save a dictionary of tensors"),
    (0, b"GGUF", "GGUF: the weights before they were quantised are needed"),
    (4, b"TFL3", "TensorFlow Lite: torch weights are needed"),
    (0, b"\x1f\x8b", "gzip: unpack it first"),
    (0, b"BZh", "bzip2: unpack it first"),
    (0, b"\xfd7zXZ", "xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "zstandard: unpack it first"),
    (0, b"7z\xbc\xaf'\x1c", "7-Zip: unpack it first"),
    (0, b"Rar!", "RAR: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it and give the checkpoint in it"),
    (344, b"n+1\x00", "NIfTI, an image"),
    (344, b"ni1\x00", "NIfTI, an image"),
    (4, b"n+2\x00", "NIfTI, an image"),
    (128, b"DICM", "DICOM, an image"),
    (0, b"\x89PNG", "PNG, an image"),
    (0, b"\xff\xd8\xff", "JPEG, an image"),
    (0, b"%PDF", "PDF, a document"),
)  # fmt: skip
TEXTS = ("<!doctype html", "<html", "<head", "<?xml", "<error")
# What only other programs' files are called; looked at last, when the bytes say nothing.
SUFFIXES = {
    ".onnx": "ONNX: the torch weights that it was exported from are needed",
    ".pb": "TensorFlow: torch weights are needed",
    ".index": "TensorFlow: torch weights are needed",
    ".meta": "TensorFlow: torch weights are needed",
    ".tflite": "TensorFlow Lite: torch weights are needed",
    ".engine": "TensorRT: the torch weights that it was built from are needed",
    ".plan": "TensorRT: the torch weights that it was built from are needed",
    ".msgpack": "Flax: torch weights are needed",
    ".distcp": "one shard of torch.distributed.checkpoint: make one file with dcp_to_torch_save",
}
WANTED = "weights as torch.save or safetensors write them"


def kind_of(path: Path) -> Kind:
    """What a file is that can be read.

    Args:
        path: of an existing file.

    Raises:
        UnsafeCheckpointError: it is something else, which is named.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size = file.seek(0, 2)
    except OSError as error:
        raise UnsafeCheckpointError(WANTED, reason(error), path.name) from error
    if not head:
        raise UnsafeCheckpointError("a checkpoint", "an empty file", path.name)
    for offset, signature, found in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            raise UnsafeCheckpointError(WANTED, found, path.name)
    if head[:2] == b"PK" or zipfile.is_zipfile(path):
        return _kind_of_zip(path)
    if path.name.endswith(".json"):
        return "index"
    if head[:1] == b"\x80" and head[2 : 2 + len(LEGACY_MAGIC)] == LEGACY_MAGIC:
        return "torch, legacy"
    if path.suffix.lower() == ".safetensors" or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") + 8 <= size):
        return "safetensors"
    raise UnsafeCheckpointError(WANTED, _named(path, head), path.name)


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UnsafeCheckpointError("a whole torch archive", reason(error), path.name) from error
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in ends:
        found = "TorchScript (torch.jit.save): save the network's state_dict() instead, or torch.jit.load it and do so"
    elif "serialized_exported_program.json" in ends or any(name.endswith("archive_format") for name in names):
        found = "a program of torch.export: save the network's state_dict() instead"
    elif "data.pkl" in ends:
        return "torch archive"
    elif "model.weights.h5" in ends:
        found = "Keras: torch weights are needed"
    elif names and all(name.endswith(".npy") for name in names):
        found = "NumPy arrays: torch.save a dictionary of tensors"
    else:
        found = f"a zip archive of {len(names)} files: unpack it and give the folder"
    raise UnsafeCheckpointError(WANTED, found, path.name)


def _named(path: Path, head: bytes) -> str:
    """What a file is that no signature tells."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(tuple(mark.encode() for mark in TEXTS)):
        return "a page of HTML or XML, as a failed download leaves it: fetch the file again"
    # The first field of an ONNX model is its version, a small number, the second the name of what wrote it.
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return SUFFIXES[".onnx"]
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if found := next((what for suffix, what in SUFFIXES.items() if suffix in suffixes), ""):
        return found
    if ".data-0" in path.name:
        return SUFFIXES[".index"]
    if head[:1] == b"\x80":
        return "a pickle that torch.save did not write: torch.save the state_dict() where you trust the file"
    if all(31 < byte < 127 or byte in b"\t\r\n" for byte in head):
        return "text"
    return "bytes of another kind, or a damaged file"
