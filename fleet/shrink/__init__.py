"""Shrinking: from a plan that fails to the smallest that fails in the same way, and what is shown of it."""
