"""MedMerge."""
