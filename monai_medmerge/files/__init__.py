"""The one way to write: whole or not at all, by one run at a time, under names that stay where they belong.

Nothing above writes in any other way. A killed process leaves a hidden folder `.medmerge-....part` beside what it was
writing; the next one to write there removes it.
"""

from monai_medmerge.files.hashing import file_sha256, tensors_sha256, weights_sha256
from monai_medmerge.files.identity import Writer
from monai_medmerge.files.locking import LOCK, FolderLock, owned
from monai_medmerge.files.naming import below, shown
from monai_medmerge.files.reading import parse_json, read_json
from monai_medmerge.files.tables import cell, csv_text, write_csv
from monai_medmerge.files.writing import (
    refusals_told,
    reserve,
    save_state,
    save_weights,
    sweep,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

__all__ = [
    "LOCK",
    "FolderLock",
    "Writer",
    "below",
    "cell",
    "csv_text",
    "file_sha256",
    "owned",
    "parse_json",
    "read_json",
    "refusals_told",
    "reserve",
    "save_state",
    "save_weights",
    "shown",
    "sweep",
    "tensors_sha256",
    "weights_sha256",
    "whole_file",
    "whole_folder",
    "write_csv",
    "write_json",
    "write_text",
]
