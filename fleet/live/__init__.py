"""Real parts under a scenario: brokers, tables, relays, agents that a live run starts, and what disturbs them."""
