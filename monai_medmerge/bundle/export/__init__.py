"""A merged network as a bundle for stock MONAI."""
