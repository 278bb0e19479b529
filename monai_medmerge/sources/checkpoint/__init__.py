"""Files that people call checkpoints: what they are, which network in them is meant, and its tensors."""

from monai_medmerge.sources.checkpoint.archive import check_archive
from monai_medmerge.sources.checkpoint.places import INDEX_SUFFIXES, plain_name
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.checkpoint.values import all_finite, is_sound

__all__ = ["INDEX_SUFFIXES", "Source", "all_finite", "check_archive", "is_sound", "plain_name"]
