"""A store that takes one PUT or parts, and that can be told to fail in every way that a store fails."""

import asyncio
import hashlib
import re
import secrets
import socket
import struct
import time
import urllib.parse

from store import ObjectStore

# How a store reads that is slow but alive, and one that only looks alive.
SLOW_BYTES, SLOW_S = 128 * 1024, 0.02
CRAWL_BYTES, CRAWL_S = 64, 1.0

EXPIRED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


class Request:
    def __init__(self, method, key, query, headers):
        self.method, self.key, self.headers = method, key, headers
        self.part = int(query.get("partNumber", ["0"])[0])
        self.upload = query.get("uploadId", [""])[0]
        self.generation = int(query.get("generation", ["0"])[0])
        self.at = time.monotonic()

    @property
    def what(self):
        return {"POST": "complete", "DELETE": "abort"}.get(self.method, f"part {self.part}" if self.part else "put")


class FaultyStore(ObjectStore):
    """`fault` looks at each request and answers how it fails: a status, "expired", "reset" (in the middle of the
    body), "stall" (takes some of the body and stands still), "mute" (takes everything and says nothing), "slow",
    "crawl"; None where it is taken."""

    def __init__(self):
        super().__init__()
        self.fault = lambda request: None
        self.requests, self.uploads, self.ended = [], {}, []
        self.generation = 0

    # The same doors as rclone has. Signatures are of no account here: the strict stores look at them.

    def url(self, key, **query):
        query = {**query, "generation": self.generation, "X-Amz-Signature": secrets.token_hex(24)}
        return f"{self.scheme}://127.0.0.1:{self.port}/backups/{key}?{urllib.parse.urlencode(query)}"

    def presign(self, key, lifetime_s=600):
        url = self.url(key)
        return url, int((time.time() + lifetime_s) * 1000), url.rpartition("=")[2]

    def begin(self, key):
        upload = f"upload-{len(self.uploads) + 1}"
        self.uploads[upload] = {}
        return upload

    def sign_part(self, key, upload, number, lifetime_s=600):
        return self.url(key, uploadId=upload, partNumber=number)

    def sign_complete(self, key, upload, lifetime_s=600):
        return self.url(key, uploadId=upload)

    sign_abort = sign_complete

    def tries(self, what):
        return [request for request in self.requests if request.what == what]

    async def request(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in rest if h)}
        url = urllib.parse.urlsplit(target)
        request = Request(method, url.path.removeprefix("/backups/"), urllib.parse.parse_qs(url.query), headers)
        self.requests.append(request)
        fault = self.fault(request)
        if fault == "dumb":
            await asyncio.Event().wait()
        if "expect" in headers:
            if fault == "expired":
                await self.answer(writer, 403, EXPIRED.encode())
                return False
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self.body(reader, int(headers.get("content-length", 0)), fault, writer)
        if fault == "mute":
            await asyncio.Event().wait()
        if isinstance(fault, int):
            await self.answer(writer, fault, b"<Error><Code>Told</Code></Error>")
        elif fault == "expired":
            await self.answer(writer, 403, EXPIRED.encode())
        else:
            await self.take(request, body, writer)
        return True

    async def body(self, reader, length, fault, writer):
        if fault in ("reset", "stall"):
            await reader.readexactly(min(length, 1000))
            if fault == "stall":
                await asyncio.Event().wait()
            # An RST, not an end.
            plain = writer.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise ConnectionError
        most, wait = {"slow": (SLOW_BYTES, SLOW_S), "crawl": (CRAWL_BYTES, CRAWL_S)}.get(fault, (length, 0))
        pieces, left = [], length
        while left:
            pieces.append(await reader.readexactly(min(left, most)))
            left -= len(pieces[-1])
            await asyncio.sleep(wait)
        return b"".join(pieces)

    async def take(self, request, body, writer):
        md5 = hashlib.md5(body)
        if request.what == "put":
            self.objects.setdefault(request.key, []).append(body)
        elif request.method == "PUT":
            self.uploads[request.upload][request.part] = (md5, body)
        elif request.method == "DELETE":
            self.uploads.pop(request.upload, None)
            self.ended.append(request.upload)
            return await self.answer(writer, 204, b"")
        else:
            parts = self.uploads.pop(request.upload)
            listed = [int(number) for number in re.findall(rb"<PartNumber>(\d+)<", body)]
            assert listed == sorted(parts), f"{listed} are to be put together of {sorted(parts)}"
            self.objects.setdefault(request.key, []).append(b"".join(parts[number][1] for number in listed))
            sums = hashlib.md5(b"".join(parts[number][0].digest() for number in listed)).hexdigest()
            xml = f"<CompleteMultipartUploadResult><ETag>\"{sums}-{len(listed)}\"</ETag></CompleteMultipartUploadResult>"
            return await self.answer(writer, 200, xml.encode())
        return await self.answer(writer, 200, b"", f'ETag: "{md5.hexdigest()}"\r\n')
