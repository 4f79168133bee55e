"""The agent's local API: JSON lines over a Unix socket, for applications in other processes and for `fleet-agent`."""
