"""What a network found, as DICOM objects that reference the images it was found in."""
