#!/usr/bin/env python3
"""Writes the golden objects of this directory, from protocol.md section 6 alone.

Needs `pip install cryptography`. The files are committed; run this only to make new ones:

    python3 tests/data/object/make.py

empty.bkpy, small.bkpy, two_frames.sha256   STREAM nonces with a fixed prefix: Sealer must write the same bytes
other_writer.bkpy                           nonces without an order, as deployed writers make them
"""
import hashlib
import pathlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = pathlib.Path(__file__).parent
KEY = bytes(range(32))
PREFIX = bytes.fromhex("a0a1a2a3a4a5a6")
CHUNK = 1024 * 1024


def plaintext(length):
    """Bytes that both sides can make: byte i is (i * 31 + i // 256) mod 251."""
    return bytes((i * 31 + i // 256) % 251 for i in range(length))


def frame(nonce, chunk):
    sealed = AESGCM(KEY).encrypt(nonce, chunk, b"")
    return struct.pack(">I", 12 + len(sealed)) + nonce + sealed


def stream(data):
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)] or [b""]
    out = b""
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        out += frame(PREFIX + struct.pack(">IB", number, last), chunk)
    return out + struct.pack(">I", 0)


def other_writer(data, step):
    """Short frames under nonces that look random; fixed here, so that the file can be made again."""
    out = b""
    for number, at in enumerate(range(0, len(data), step)):
        nonce = hashlib.sha256(b"nonce %d" % number).digest()[:12]
        out += frame(nonce, data[at : at + step])
    return out + struct.pack(">I", 0)


(HERE / "empty.bkpy").write_bytes(stream(b""))
(HERE / "small.bkpy").write_bytes(stream(plaintext(1000)))
# 2 MiB of ciphertext would be a burden in the repository: the test compares this digest.
two = stream(plaintext(CHUNK + 5))
(HERE / "two_frames.sha256").write_text(f"{hashlib.sha256(two).hexdigest()} {len(two)}\n")
(HERE / "other_writer.bkpy").write_bytes(other_writer(plaintext(1000), 400))
