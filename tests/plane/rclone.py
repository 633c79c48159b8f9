"""rclone's S3 server, and boto3 as the one who signs, lists and fetches: neither end of an upload is ours here.

It checks signature, key, age and signed headers of presigned URLs, and refuses a PUT without a length (411).
"""

import asyncio
import contextlib
import re
import sys
import threading
import time
from pathlib import Path

import boto3
import botocore.exceptions
from botocore.config import Config

from case import check
from parts import signature_of

BUCKET = "backups"
ACCESS_KEY, SECRET_KEY = "AKIARCLONETEST00", "a-secret-of-the-control-plane-alone"
START_LIMIT_S = 20
SESSION, SESSION_LOCK = boto3.Session(), threading.Lock()


@contextlib.contextmanager
def unless(code):
    try:
        yield
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise


class Rclone:
    """One server over a directory. Calls that block are short, or made beside the loop."""

    def __init__(self):
        self.objects, self.refusals = self, []

    async def start(self, folder, authority=None):
        data = Path(folder) / "rclone"
        data.mkdir()
        program = Path(sys.executable).parent / "rclone"
        arguments = ["serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}",
                     "--config", "/dev/null", "-vv"]
        if authority:
            arguments += ["--cert", str(authority.cert_file), "--key", str(authority.key_file)]
        # A file: a pipe that nobody empties while boto3 waits for an answer would hold the server up.
        self.log = Path(folder) / "rclone.log"
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                program, *arguments, str(data), env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=log)
        async with asyncio.timeout(START_LIMIT_S):
            while not (found := re.search(r"server on \[(https?://127\.0\.0\.1:\d+)/", self.log.read_text())):
                check(self.process.returncode is None, f"rclone ended: {self.log.read_text()}")
                await asyncio.sleep(0.05)
        self.url = found.group(1)
        self.verify = str(authority.ca_file) if authority else False
        self.client = await asyncio.to_thread(self.signer, SECRET_KEY)
        await asyncio.to_thread(self.client.create_bucket, Bucket=BUCKET)
        return self

    def signer(self, secret):
        style = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1},
                       proxies={})
        # One session for all: it reads boto3's description of S3 once, which takes its time.
        with SESSION_LOCK:
            return SESSION.client("s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=ACCESS_KEY,
                                  aws_secret_access_key=secret, config=style, verify=self.verify)

    async def stop(self):
        self.process.kill()
        await self.process.wait()

    def sign(self, method, lifetime_s, client=None, **params):
        params.setdefault("Bucket", BUCKET)
        return (client or self.client).generate_presigned_url(method, Params=params, ExpiresIn=int(lifetime_s))

    # The same doors as the tests' own store has.

    def presign(self, key, lifetime_s=600, content_type="application/octet-stream", **other):
        url = self.sign("put_object", lifetime_s, Key=key, ContentType=content_type, **other)
        return url, int((time.time() + lifetime_s) * 1000), signature_of(url)

    def begin(self, key):
        return self.client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]

    def sign_part(self, key, upload, number, lifetime_s=600):
        return self.sign("upload_part", lifetime_s, Key=key, UploadId=upload, PartNumber=number)

    def sign_complete(self, key, upload, lifetime_s=600):
        return self.sign("complete_multipart_upload", lifetime_s, Key=key, UploadId=upload)

    def sign_abort(self, key, upload, lifetime_s=600):
        return self.sign("abort_multipart_upload", lifetime_s, Key=key, UploadId=upload)

    def get(self, key, default=None):
        """The object's bytes, in a list as the tests' own store keeps them."""
        with unless("NoSuchKey"):
            return [self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()]
        return default

    def unfinished(self):
        """Uploads in parts that were begun and not ended. A bucket that never had any is an error to rclone."""
        with unless("NoSuchUpload"):
            return self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return []

    def parts(self, key, upload):
        """The numbers of the parts that it has."""
        with unless("NoSuchUpload"):
            listed = self.client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)
            return {part["PartNumber"] for part in listed.get("Parts", [])}
        return set()

    def denied(self):
        """How many requests it refused for their signature or age."""
        return self.log.read_text().count("Access Denied")
