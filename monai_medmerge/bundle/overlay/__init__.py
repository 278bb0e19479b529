"""A user's own training configuration, started from merged sources."""

from monai_medmerge.bundle.overlay.starting import Overlay

__all__ = ["Overlay"]
