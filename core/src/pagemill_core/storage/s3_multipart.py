"""A large local file as one object, sent in parts; nobody sees it before its last part, and a failure leaves nothing.

Layer: `core.storage`, beside `s3`. For unconditional writes only: two CompleteMultipartUpload calls with a precondition
were both seen to win.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from pagemill_core.errors import ObjectNotFoundError, PagemillError, StoreUnavailableError
from pagemill_core.storage.s3_client import Call, S3Client

_SMALLEST_PART = 16 << 20
_MOST_PARTS = 10_000  # the limit of S3
_THREADS = 4


def put_parts(client: S3Client, key: str, path: Path, headers: Mapping[str, str]) -> str:
    """Write the file as the object `key` (whole key). Returns: its token. Memory: four parts."""
    size = path.stat().st_size
    part_size = max(_SMALLEST_PART, -(-size // _MOST_PARTS))
    offsets = range(0, size, part_size)
    reply = client.send(Call("POST", key, {"uploads": ""}, headers))
    upload_id = _found(reply.body, "UploadId")
    try:
        with ThreadPoolExecutor(_THREADS) as threads:

            def send_part(number: int) -> str:
                parameters = {"partNumber": str(number), "uploadId": upload_id}
                body = _read(path, offsets[number - 1], part_size)
                return client.send(Call("PUT", key, parameters, {}, body)).headers.get("ETag") or ""

            etags = list(threads.map(send_part, range(1, len(offsets) + 1)))
        return _complete(client, key, upload_id, etags)
    except BaseException:
        # A lifecycle rule removes what this cannot reach; the first error is the one to tell.
        with contextlib.suppress(PagemillError):
            client.send(Call("DELETE", key, {"uploadId": upload_id}, accepts=frozenset((200, 204, 404))))
        raise


def _complete(client: S3Client, key: str, upload_id: str, etags: list[str]) -> str:
    root = ElementTree.Element("CompleteMultipartUpload")
    for number, etag in enumerate(etags, start=1):
        part = ElementTree.SubElement(root, "Part")
        ElementTree.SubElement(part, "PartNumber").text = str(number)
        ElementTree.SubElement(part, "ETag").text = etag
    call = Call("POST", key, {"uploadId": upload_id}, {"content-type": "application/xml"}, ElementTree.tostring(root))
    try:
        token = _found(client.send(call).body, "ETag").strip('"')
    except ObjectNotFoundError:
        # The upload is gone: an earlier try of this call, whose reply was lost, has completed it.
        reply = client.send(Call("HEAD", key))
        token = (reply.headers.get("ETag") or "").strip('"')
        if not token.endswith(f"-{len(etags)}"):
            raise
    return token


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset, os.SEEK_SET)
        return file.read(size)


def _found(body: bytes, name: str) -> str:
    """The text of the reply's element `name`: S3 can answer 200 and an error in the body."""
    with contextlib.suppress(ElementTree.ParseError):
        for element in ElementTree.fromstring(body).iter():
            if element.tag.rpartition("}")[2] == name and element.text:
                return element.text
    raise StoreUnavailableError(f"the store's reply to a multipart upload holds no {name}")
