"""What one network reaches on labelled cases: per class, per label, per grade, per segment; in plain types."""

from monai_medmerge.evaluation.results.classes import class_results
from monai_medmerge.evaluation.results.grades import grade_results
from monai_medmerge.evaluation.results.labels import label_results
from monai_medmerge.evaluation.results.segments import segment_results

__all__ = ["class_results", "grade_results", "label_results", "segment_results"]
