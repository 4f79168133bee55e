"""The engine under agent.protocol.schema: OneTable's schema format and the items that its models make. No I/O."""
