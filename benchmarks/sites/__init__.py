"""The same task at several sites: sources of each, a new site with few labels and unlabelled images."""
