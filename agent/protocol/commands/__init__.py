"""What `fleet-agent` and `fleet-cloud` share: how items are typed in and printed, how errors are told, how help looks.

The one part of agent.protocol that prints; it reads and writes nothing else.
"""
