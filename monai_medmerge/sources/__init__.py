"""What is merged: sources, how they fit a network, and how weights get into one."""

from monai_medmerge.sources.adaptation import adapt
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.loading import load_sources
from monai_medmerge.sources.matching import MatchReport, check_compatible, match, resolve

__all__ = ["MatchReport", "Source", "adapt", "check_compatible", "load_sources", "match", "resolve"]
