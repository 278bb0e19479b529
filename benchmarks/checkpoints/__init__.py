"""Checkpoints in the forms in which people have them, read into six networks of MONAI: right, refused or wrong."""
