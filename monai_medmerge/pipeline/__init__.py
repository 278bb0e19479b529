"""From sources and images to a checked, exported bundle: stages, each a folder that is reused or gone on with."""

from monai_medmerge.pipeline.running import run_pipeline
from monai_medmerge.pipeline.stage import Job, Stage, StoppedError
from monai_medmerge.pipeline.stages import STAGES

__all__ = ["STAGES", "Job", "Stage", "StoppedError", "run_pipeline"]
