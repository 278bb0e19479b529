"""Several volumes in one series: what tells them apart, and which one is meant."""
