"""The edge: HTTP server, pages, health, and the WebSocket gateway."""
