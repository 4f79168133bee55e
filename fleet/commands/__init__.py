"""The commands of `fleet`, one module each: `ORDER` (its place in the help) and `register(app)`."""
