"""Scenarios that ship, and the schemas they use: data only. Found by `importlib.resources`, in the wheel too."""
