"""A TrueType font that draws nothing, embedded in searchable PDFs so that any character can be found in them.

Layer: `worker.views`; pure. The text layer is invisible anyway; the font only gives characters a width and a place.
Source: the OpenType specification's tables that PDF (ISO 32000-1, 9.9) demands of an embedded CIDFontType2.
"""

from __future__ import annotations

import struct

UNITS_PER_EM = 1000
GLYPH_WIDTH = 500  # of every character; the text layer stretches each run to its box
ASCENT = 800  # ascent and descent together fill the box; a descent of 0 makes some readers assume one
DESCENT = -200
GLYPH = 1  # the index of the only glyph beside the obligatory .notdef


def glyphless_font() -> bytes:
    """The font file, the same bytes each time."""
    tables = {
        b"glyf": _glyph(),
        b"head": _head(),
        b"hhea": struct.pack(">LhhhHhhhhhhhhhhhH", 0x00010000, ASCENT, DESCENT, 0, GLYPH_WIDTH, *[0] * 11, 2),
        b"hmtx": struct.pack(">HhHh", GLYPH_WIDTH, 0, GLYPH_WIDTH, 0),
        b"loca": struct.pack(">HHH", 0, 0, len(_glyph()) // 2),
        b"maxp": struct.pack(">LHHH11H", 0x00010000, 2, 2, 1, 0, 0, 1, *[0] * 8),
    }
    return _assemble(tables)


def _glyph() -> bytes:
    """A line from corner to corner and back: it encloses nothing, so it draws nothing.

    An empty glyph would have no extent, and pdfium drops text of no extent when it is rotated.
    """
    on_curve = 1
    box = struct.pack(">hhhhh", 1, 0, DESCENT, GLYPH_WIDTH, ASCENT)
    return box + struct.pack(">HHBBhhhh", 1, 0, on_curve, on_curve, 0, GLYPH_WIDTH, DESCENT, ASCENT - DESCENT)


def _head() -> bytes:
    versions = struct.pack(">LL", 0x00010000, 0x00010000)
    adjustment_magic_flags = struct.pack(">LLH", 0, 0x5F0F3CF5, 0)
    em_and_dates = struct.pack(">Hqq", UNITS_PER_EM, 0, 0)
    box = struct.pack(">hhhh", 0, DESCENT, GLYPH_WIDTH, ASCENT)
    style_ppem_direction_offsets_format = struct.pack(">HHhhh", 0, 8, 2, 0, 0)
    return versions + adjustment_magic_flags + em_and_dates + box + style_ppem_direction_offsets_format


def _assemble(tables: dict[bytes, bytes]) -> bytes:
    power = len(tables).bit_length() - 1
    header = struct.pack(">LHHHH", 0x00010000, len(tables), 16 << power, power, 16 * len(tables) - (16 << power))
    directory, body, head_at = b"", b"", 0
    start = len(header) + 16 * len(tables)
    for tag in sorted(tables):
        padded = tables[tag] + bytes(-len(tables[tag]) % 4)
        directory += tag + struct.pack(">LLL", _checksum(padded), start + len(body), len(tables[tag]))
        head_at = start + len(body) if tag == b"head" else head_at
        body += padded
    font = header + directory + body
    # The whole file must sum to this constant; the field at byte 8 of head makes it so.
    adjustment = struct.pack(">L", (0xB1B0AFBA - _checksum(font)) & 0xFFFFFFFF)
    return font[: head_at + 8] + adjustment + font[head_at + 12 :]


def _checksum(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f">{len(data) // 4}L", data)
    return sum(words) & 0xFFFFFFFF
