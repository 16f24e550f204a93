"""Metadata of a `FolderStore`'s objects, in files of their own, so that the objects are plain files.

Layer: `core.storage`, below `folder`. A file is named by the object's key and token and written before the object
shows: whoever sees the object finds its metadata, and a writer killed in between leaves a file that nothing reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from pagemill_core.errors import IntegrityError
from pagemill_core.ids import canonical_json
from pagemill_core.storage import folder_files as files
from pagemill_core.storage.keys import shown


class MetaFiles:
    """Metadata by key and token, below `.pagemill-store/meta`."""

    def __init__(self, tree: files.Tree) -> None:
        self._tree = tree

    def read(self, key: str, token: str) -> Mapping[str, str]:
        """Metadata of this version of the object; empty when it has none."""
        descriptor = self._tree.open_file(_name(key, token))
        if descriptor is None:
            return {}
        try:
            text = files.read_all(descriptor)
        finally:
            os.close(descriptor)
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise IntegrityError(f"the metadata of {shown(key)} in {self._tree.root} is damaged") from error
        return {str(name): str(value) for name, value in parsed.items()}

    def write(self, key: str, token: str, meta: Mapping[str, str]) -> None:
        """Keep `meta`, durably; nothing is written when it is empty."""
        if not meta:
            return
        content = canonical_json(dict(meta))
        with self._tree.temporary(lambda descriptor: files.write_all(descriptor, content)) as temporary:
            self._tree.link(temporary, _name(key, token))

    def drop(self, key: str, token: str) -> None:
        """Forget the metadata of a version that nobody sees any more."""
        self._tree.unlink(_name(key, token), is_durable=False)


def _name(key: str, token: str) -> str:
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{files.PRIVATE_FOLDER}/meta/{digest[:2]}/{digest[2:40]}.{token}"
