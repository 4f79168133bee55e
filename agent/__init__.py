"""The agent: an embedded database on the device, and the session that keeps it in sync with the cloud."""
