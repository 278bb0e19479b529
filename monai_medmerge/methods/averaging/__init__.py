"""Methods that average whole networks: with equal weights, given ones, chosen ones, or on a sphere."""
