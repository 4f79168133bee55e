"""The agent as it runs on a device: the session, its database and a transport, driven by trio."""
