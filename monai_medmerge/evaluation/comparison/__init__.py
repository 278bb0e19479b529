"""Two networks over the same cases."""
