"""Capacity plans: a scenario at several sizes, what it needs of the cloud, what breaks first, and what would help."""
