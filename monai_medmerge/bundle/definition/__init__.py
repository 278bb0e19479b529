"""What travels with weights: network, preprocessing, classes, task, defined once."""
