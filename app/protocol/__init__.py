"""The wire: WebSocket frames, HTTP endpoints, the broker envelope and delivery blobs. No I/O."""
