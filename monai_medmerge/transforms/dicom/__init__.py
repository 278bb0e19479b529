"""DICOM in and out: series, geometry, pixels, values, segmentations."""
