"""An order whose object may go up in parts, and a control plane that renews its URLs when it is asked."""

import sqlite3
import urllib.parse

from case import Order, check

MIB = 1024 * 1024
# S3 takes no smaller part but the last.
PART_BYTES = 5 * MIB


def noise(path, megabytes):
    """A SQLite file of that size which does not compress; made by SQLite alone, so that nothing here waits for it."""
    connection = sqlite3.connect(path)
    connection.execute("create table noise (id integer primary key, body blob)")
    connection.execute("with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)"
                       "insert into noise select i, randomblob(10000) from n", (megabytes * 100,))
    connection.commit()
    connection.close()
    return path


def signature_of(url):
    """What of a presigned URL is a secret."""
    return urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["X-Amz-Signature"][0]


class PartedOrder(Order):
    """A RunBackup that also offers an upload in parts, begun at the store."""

    def __init__(self, agent, store, parts=20, part_bytes=PART_BYTES, lifetime_s=600, **other):
        super().__init__(agent, store, lifetime_s=lifetime_s, **other)
        self.agent, self.parts, self.part_bytes = agent, parts, part_bytes
        self.upload_id, self.first_part = store.begin(self.key), 1
        self.sign(lifetime_s)

    def sign(self, lifetime_s=600, dead_from=None, dead_life_s=1):
        """Fresh URLs for everything; parts from `dead_from` on are signed for so short a time only."""
        store, key, upload = self.store, self.key, self.upload_id
        self.url, self.expires_at_ms, signature = store.presign(key, lifetime_s)
        lives = {number: dead_life_s if dead_from and number >= dead_from else lifetime_s
                 for number in range(1, self.parts + 1)}
        self.part_urls = [store.sign_part(key, upload, number, life) for number, life in lives.items()]
        self.complete_url = store.sign_complete(key, upload, lifetime_s)
        self.abort_url = store.sign_abort(key, upload, lifetime_s)
        known = [signature, *map(signature_of, [*self.part_urls, self.complete_url, self.abort_url])]
        for secret in known:
            self.agent.secrets[f"the signature {secret[:4]}..."] = secret

    def body(self, **other):
        body = super().body(**other)
        body["upload_creds"].update({
            "part_size_bytes": self.part_bytes, "presigned_part_urls": self.part_urls,
            "presigned_complete_url": self.complete_url, "presigned_abort_url": self.abort_url,
            "multipart_upload_id": self.upload_id, "first_part_number": self.first_part})
        return body

    async def asked(self, session, timeout=20, after=0):
        """The agent's question for fresh URLs."""
        question = await session.wait_for("UploadUrlsRequest", self.is_mine, timeout, after)
        check(question["job_id"] == self.job and question["s3_key"] == self.key, f"{question}")
        return question
