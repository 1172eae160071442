"""WebSocket gateway: upgrade, connections, and fan-out to local members."""
