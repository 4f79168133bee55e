"""Quotas of a cloud that act inside the simulation: presets, buckets, and what stands before broker, table, relay."""
