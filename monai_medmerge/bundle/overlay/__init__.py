"""A user's own training configuration, started from merged sources."""

from monai_medmerge.bundle.overlay.starting import Overlay
from monai_medmerge.bundle.overlay.workflow import MergedWorkflow

__all__ = ["MergedWorkflow", "Overlay"]
