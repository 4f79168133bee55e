"""The contract between agent and cloud: messages, topics, errors, and the schema. No clock, no randomness, no network.

What a schema file may say, and how its models make, check and read items, is in agent.protocol.onetable, under schema;
`Schema.load` reads that file, and nothing else of the contract does I/O. What the two command lines share is in
agent.protocol.commands, which prints: it is here because this is what agent and cloud share, and nothing of the
contract may import it.
"""
