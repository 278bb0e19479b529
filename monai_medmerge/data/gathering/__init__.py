"""From images as people have them to a dataset folder: found, checked, split, counted and shown."""

from monai_medmerge.data.gathering.checks import check_items
from monai_medmerge.data.gathering.items import PARTS, Item, find_items
from monai_medmerge.data.gathering.splitting import split
from monai_medmerge.data.gathering.writing import write_dataset

__all__ = ["PARTS", "Item", "check_items", "find_items", "split", "write_dataset"]
