"""Networks that grew from one strong ancestor, each on another kind of medical image, for a task none of them knows."""
