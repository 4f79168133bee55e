"""Remote commands: orders that come down as items of the model Command, answered by items of CommandResult. See
docs/commands.md and agent.remote.commander."""
