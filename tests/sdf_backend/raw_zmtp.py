"""Hand-written ZMTP (RFC 23), for streams that libzmq never sends: slow and endless messages."""

import json
import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def connect(address: str) -> socket.socket:
    """A DEALER without security, ready to send frames."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    stream = socket.create_connection((host, int(port)), timeout=30)
    stream.sendall(GREETING)
    received = b""
    while len(received) < len(GREETING):
        received += stream.recv(len(GREETING) - len(received))
    body = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    stream.sendall(bytes([4, len(body)]) + body)
    return stream


def frame(content: bytes, more: bool) -> bytes:
    return bytes([2 | more]) + struct.pack(">Q", len(content)) + content


def message(header: dict, *arrays: bytes) -> bytes:
    """All frames of one message, as bytes of the stream."""
    frames = [b"SDF1", json.dumps(header).encode(), *arrays]
    return b"".join(frame(content, index < len(frames) - 1) for index, content in enumerate(frames))
