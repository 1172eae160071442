"""WebSocket frames as a server sends them (RFC 6455, 5.2): unmasked, unfragmented, so the same bytes serve every receiver."""

import struct

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A


def encode(opcode: int, payload: bytes) -> bytes:
    """One complete frame; `opcode` is one of TEXT, CLOSE, PING, PONG (FIN bit included)."""
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", opcode, 126, size) + payload
    return struct.pack("!BBQ", opcode, 127, size) + payload


def text(payload: bytes) -> bytes:
    """A text frame; `payload` is UTF-8."""
    return encode(TEXT, payload)


def close(code: int, reason: str) -> bytes:
    """A close frame; the reason is cut to the 123 bytes a control frame may carry."""
    return encode(CLOSE, struct.pack("!H", code) + reason.encode()[:123])
