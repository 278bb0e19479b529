"""What one trains on: datasets, their budgets, classes and volumes."""

from monai_medmerge.data.budget import label_budget
from monai_medmerge.data.classes import agreed_class_names, class_names, dataset_classes
from monai_medmerge.data.datasets import load_datalist, prepare_medmnist, write_images
from monai_medmerge.data.site import load_cases
from monai_medmerge.data.volumes import list_volumes, load_volumes

__all__ = [
    "agreed_class_names",
    "class_names",
    "dataset_classes",
    "label_budget",
    "list_volumes",
    "load_cases",
    "load_datalist",
    "load_volumes",
    "prepare_medmnist",
    "write_images",
]
