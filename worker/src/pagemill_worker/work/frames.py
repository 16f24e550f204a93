"""Messages between the supervisor and its children: framed JSON over pipes, with bytes beside it where they are large.

Layer: `worker.work`; no knowledge of what the messages mean. JSON, because a child handles files from strangers and
nothing that comes out of it may run code in the supervisor.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import IO, Any

_LENGTHS = struct.Struct("<II")
MAX_FRAME_BYTES = 1 << 30
DATA = "data"  # where a decoded message holds the bytes that came with it
Message = Mapping[str, Any]


def encode(message: Message, data: bytes | None = None) -> bytes:
    """`message` as one frame: the lengths of its two parts, each four bytes, little endian; JSON; `data`."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((_LENGTHS.pack(len(body), len(data or b"")), body, data or b""))


class Decoder:
    """Cuts a stream of bytes, fed as it comes, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that `data` completes. Raises: ValueError when the stream is not ours."""
        self._buffer += data
        while len(self._buffer) >= _LENGTHS.size:
            body, attached = _LENGTHS.unpack_from(self._buffer)
            if body + attached > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {body + attached} bytes")
            end = _LENGTHS.size + body + attached
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[_LENGTHS.size : end])
            del self._buffer[:end]
            yield _message(frame[:body], frame[body:])


def read(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message, None at the end of the stream. Blocks."""
    header = stream.read(_LENGTHS.size)
    if len(header) < _LENGTHS.size:
        return None
    body, attached = _LENGTHS.unpack(header)
    frame = stream.read(body + attached)
    return _message(frame[:body], frame[body:]) if len(frame) == body + attached else None


def _message(body: bytes, data: bytes) -> dict[str, Any]:
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a frame that is no object")
    if data:
        message[DATA] = data
    return message
