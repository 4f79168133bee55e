"""The contract between agent and cloud: messages, topics, errors, and the schema. No I/O, no clock, no randomness.

What a schema file may say, and how its models make, check and read items, is in agent.protocol.onetable, under schema.
What the two command lines share is in agent.protocol.commands, which prints.
"""
