"""Opens a backup object with nothing but the contract, section 6."""

import io
import struct

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 1 << 20


def open_object(data, key):
    """The compressed stream; checks framing, tags, chunk sizes and the order in the nonces."""
    cipher, chunks, nonces, at = AESGCM(key), [], [], 0
    while True:
        (length,) = struct.unpack_from(">I", data, at)
        at += 4
        if length == 0:
            break
        assert 28 <= length <= CHUNK + 28, f"a frame of {length} bytes"
        frame = data[at:at + length]
        at += length
        nonces.append(frame[:12])
        chunks.append(cipher.decrypt(frame[:12], frame[12:], None))
    assert at == len(data), "bytes after the final zero"
    assert all(len(chunk) == CHUNK for chunk in chunks[:-1]), "a chunk before the last is not 1 MiB"
    for number, nonce in enumerate(nonces):
        last = number == len(nonces) - 1
        assert nonce[:7] == nonces[0][:7], "the prefix of the nonces changes"
        assert nonce[7:] == struct.pack(">I", number) + bytes([last]), f"nonce of frame {number}: {nonce.hex()}"
    return b"".join(chunks)


def plaintext(data, key, compression="zstd"):
    """What was backed up."""
    stream = open_object(data, key)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stream), read_across_frames=True).read()
    return stream
