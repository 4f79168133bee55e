"""The commands of `fleet-agent`, a module for each purpose, imported only when its command runs. See agent.cli."""
