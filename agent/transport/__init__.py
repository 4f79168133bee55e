"""How an agent reaches its relay: a port (agent.transport.port) and two adapters, MQTT and a direct WebSocket.

Knows no message of the protocol: payloads are bytes. Used by agent.runtime.
"""
