"""Tables of the simulated cloud that are not in memory: on an emulator of DynamoDB, through the real adapter."""
