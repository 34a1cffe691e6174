"""Pictures for models that see: PNG files of coloured tiles, deterministic in their seed.

Tiles instead of noise keep the request small while the model gets the pixels that were asked for: what an image costs
it, it costs by its size. Written by hand (PNG, RFC 2083), so that a load generator needs no imaging library.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

_TILE = 16
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = bytes((8, 2, 0, 0, 0))


def png_of(width: int, height: int, seed: int) -> bytes:
    """A PNG of that many pixels; equal for equal arguments."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 256, size=(-(-height // _TILE), -(-width // _TILE), 3), dtype=np.uint8)
    pixels = tiles.repeat(_TILE, axis=0).repeat(_TILE, axis=1)[:height, :width]
    # Every line begins with its filter, none.
    lines = np.concatenate([np.zeros((height, 1), dtype=np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">II", width, height) + _EIGHT_BIT_RGB
    data = zlib.compress(lines.tobytes(), level=1)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def data_url(width: int, height: int, seed: int) -> str:
    """The picture as a data: URL, as `image_url` takes it."""
    return "data:image/png;base64," + base64.b64encode(png_of(width, height, seed)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
