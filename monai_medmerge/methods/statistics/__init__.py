"""What methods want measured on each source's data."""
