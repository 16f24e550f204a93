"""Messages between the supervisor and its children: framed JSON over pipes.

Layer: `worker.work`; no knowledge of what the messages mean. JSON, because a child handles files from strangers and
nothing that comes out of it may run code in the supervisor.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import IO, Any

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 256 << 20
Message = Mapping[str, Any]


def encode(message: Message) -> bytes:
    """`message` as one frame: four bytes of length, little endian, then JSON."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a stream of bytes, fed as it comes, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that `data` completes. Raises: ValueError when the stream is not ours."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            message = json.loads(body)
            if not isinstance(message, dict):
                raise ValueError("a frame that is no object")
            yield message


def read(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message, None at the end of the stream. Blocks."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    body = stream.read(length)
    message: dict[str, Any] | None = json.loads(body) if len(body) == length else None
    return message
