"""What a run leaves: its course, what it reached, and the reports of it."""
