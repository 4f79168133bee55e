"""The contract between agent and cloud: schema, messages, topics, stamps, errors. No I/O, no clock, no randomness.

What the two command lines share is in agent.protocol.commands, which prints.
"""
