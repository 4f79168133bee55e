"""The cloud's side: the table, ingest of what devices send, the change feeds, catch-up after an outage."""
