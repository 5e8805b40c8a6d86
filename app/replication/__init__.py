"""The remote door: following other States' logs, witnessing them, and fetching the bodies this State is entitled to."""
