"""What the configurations of bundles call."""

from monai_medmerge.bundle.alignment import align_sources
from monai_medmerge.bundle.auto import AutoMerge, AutoRecipe
from monai_medmerge.bundle.definition.asking import define, read_definition
from monai_medmerge.bundle.definition.heads import find_head
from monai_medmerge.bundle.definition.networks import as_network, network_from
from monai_medmerge.bundle.distributed import check_ranks_agree, start_distributed, stop_distributed
from monai_medmerge.bundle.inference import ReadableImages, list_images, unlabelled_images
from monai_medmerge.bundle.merging import merge_sources
from monai_medmerge.bundle.phases import phase_handlers
from monai_medmerge.bundle.ranking import choose_sources, rank_sources
from monai_medmerge.bundle.reading import read_sources
from monai_medmerge.bundle.results.history import TrainingHistory
from monai_medmerge.bundle.results.merge_report import MergeReport
from monai_medmerge.bundle.results.outcome import Outcome
from monai_medmerge.bundle.results.segmentation_outcome import SegmentationOutcome, volume_dice
from monai_medmerge.bundle.results.verification import named_reference, read_gate, set_aside_report, verify
from monai_medmerge.bundle.settings import check_settings
from monai_medmerge.bundle.starts import best_start, choose_start
from monai_medmerge.bundle.tasks import task_loss
from monai_medmerge.data.budget import label_budget, load_labelled
from monai_medmerge.data.classes import agreed_class_names, class_names, dataset_classes
from monai_medmerge.data.datasets import load_datalist, load_unlabelled, prepare_medmnist, write_images
from monai_medmerge.data.site import load_cases, load_volume_cases
from monai_medmerge.data.volumes import list_volumes, load_volumes
from monai_medmerge.files import owned, save_weights, whole_file, write_json
from monai_medmerge.sources.filling import load_weights, log_match
from monai_medmerge.transforms.dicom.results.codes import class_codes, offer_code, segments_of

__all__ = [
    "AutoMerge",
    "AutoRecipe",
    "MergeReport",
    "Outcome",
    "ReadableImages",
    "SegmentationOutcome",
    "TrainingHistory",
    "agreed_class_names",
    "align_sources",
    "as_network",
    "best_start",
    "check_ranks_agree",
    "check_settings",
    "choose_sources",
    "choose_start",
    "class_codes",
    "class_names",
    "dataset_classes",
    "define",
    "find_head",
    "label_budget",
    "list_images",
    "list_volumes",
    "load_cases",
    "load_datalist",
    "load_labelled",
    "load_unlabelled",
    "load_volume_cases",
    "load_volumes",
    "load_weights",
    "log_match",
    "merge_sources",
    "named_reference",
    "network_from",
    "offer_code",
    "owned",
    "phase_handlers",
    "prepare_medmnist",
    "rank_sources",
    "read_definition",
    "read_gate",
    "read_sources",
    "save_weights",
    "segments_of",
    "set_aside_report",
    "start_distributed",
    "stop_distributed",
    "task_loss",
    "unlabelled_images",
    "verify",
    "volume_dice",
    "whole_file",
    "write_images",
    "write_json",
]
