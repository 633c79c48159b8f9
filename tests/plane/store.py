"""A strict little object store: one PUT per presigned URL, of a known length, or an error."""

import asyncio
import hashlib
import secrets
import time
import urllib.parse


class ObjectStore:
    """Takes what S3 takes and refuses what S3 refuses. Speaks HTTP/1.1 by hand, over TLS or not."""

    def __init__(self):
        self.objects, self.puts, self.refusals = {}, [], []
        self.signatures = {}
        # For the next requests, instead of storing: a status, or "cut" in the middle of the body.
        self.answers = []
        self.etag = None              # instead of the true one
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()   # closed: a request is read in part, and waits
        self.gate.set()
        self.handlers = set()

    async def start(self, ssl=None):
        self.server = await asyncio.start_server(self.handle, "127.0.0.1", 0, ssl=ssl)
        self.scheme = "https" if ssl else "http"
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        self.gate.set()
        self.server.close()
        for task in self.handlers:
            task.cancel()

    def presign(self, key, lifetime_s=600):
        """URL, expiry in unix milliseconds, and the part of the URL that is a secret."""
        signature = secrets.token_hex(24)
        self.signatures[key] = (signature, time.time() + lifetime_s)
        query = urllib.parse.urlencode({"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Expires": lifetime_s,
                                        "X-Amz-Credential": "AK/20260101/eu/s3/aws4_request",
                                        "X-Amz-Signature": signature})
        url = f"{self.scheme}://127.0.0.1:{self.port}/backups/{key}?{query}"
        return url, int((time.time() + lifetime_s) * 1000), signature

    async def handle(self, reader, writer):
        task = asyncio.current_task()
        self.handlers.add(task)
        try:
            while await self.request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.handlers.discard(task)
            writer.transport.abort()

    async def request(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in rest if h)}
        url = urllib.parse.urlsplit(target)
        key = url.path.removeprefix("/backups/")
        self.puts.append({"key": key, "method": method, "headers": headers, "at": time.monotonic()})
        self.arrived.set()
        refusal = self.judge(method, key, url, headers)
        if headers.get("expect", "").lower() == "100-continue" and not refusal:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(headers.get("content-length", 0))
        first = await reader.readexactly(min(length, 1000))
        if self.answers and self.answers[0] == "cut":
            self.answers.pop(0)
            raise ConnectionError
        await self.gate.wait()
        body = first + await reader.readexactly(length - len(first))
        if self.answers and not refusal:
            refusal = (self.answers.pop(0), "SlowDown")
        if refusal:
            self.refusals.append(refusal)
            await self.answer(writer, refusal[0], f"<Error><Code>{refusal[1]}</Code></Error>".encode())
            return True
        self.objects.setdefault(key, []).append(body)
        etag = self.etag or hashlib.md5(body).hexdigest()
        await self.answer(writer, 200, b"", f'ETag: "{etag}"\r\n')
        return True

    def judge(self, method, key, url, headers):
        if method != "PUT":
            return 405, "MethodNotAllowed"
        if "transfer-encoding" in headers or "content-length" not in headers:
            return 411, "MissingContentLength"
        if headers.get("content-type") != "application/octet-stream":
            return 403, "SignatureDoesNotMatch"
        signature, expires = self.signatures.get(key, ("", 0))
        given = urllib.parse.parse_qs(url.query).get("X-Amz-Signature", [""])[0]
        if given != signature or time.time() > expires:
            return 403, "AccessDenied"
        return None

    async def answer(self, writer, status, body, extra=""):
        writer.write(f"HTTP/1.1 {status} Answer\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body)
        await writer.drain()

    async def wait_for_puts(self, count, timeout=20):
        until = time.monotonic() + timeout
        while len(self.puts) < count:
            if time.monotonic() > until:
                raise AssertionError(f"{len(self.puts)} requests at the object store, not {count}")
            await asyncio.sleep(0.01)
