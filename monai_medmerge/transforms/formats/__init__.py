"""Volumes in files of research: NRRD, MetaImage, FreeSurfer's MGH, Analyze, Philips' PAR/REC."""
