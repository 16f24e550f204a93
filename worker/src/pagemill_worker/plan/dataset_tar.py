"""Rows of WebDataset shards: members of a tar with one stem are one sample, its picture read where it lies.

Layer: `worker.plan`, above `tar_members`. Beside a Parquet file of the same name the table says which rows there are,
failed ones among them, and the tar holds their pictures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pagemill_core.errors import SourceError
from pagemill_worker.items import ItemFailure, Scalar
from pagemill_worker.plan.column_types import value_type_name
from pagemill_worker.plan.dataset_parquet import Addresses, Note, row_id, unusable
from pagemill_worker.plan.parquet_scan import ParquetScan
from pagemill_worker.plan.rows import Row, encode_columns
from pagemill_worker.plan.source_bytes import SourceBytes
from pagemill_worker.plan.tar_members import Member, TarMembers
from pagemill_worker.views.characters import valid_text

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})
_SMALL = {"txt": "caption", "url": "url", "cls": "cls"}  # members that are one value, by their column
MAX_SMALL_BYTES = 1 << 20  # arbitrary; of a caption or a sample's JSON
_NOT_A_SAMPLE = re.compile(r"(?:^|/)(?:\.|__[^/]*__(?:/|\Z))").search  # hidden files, and marks of the format itself


@dataclass(slots=True)
class Sample:
    """The members of one key; `kept` are the small ones by the last part of their names.

    `is_whole` is false where the tar's damage may have taken members of it.
    """

    key: str
    picture: Member | None = None
    kept: dict[str, Member] = field(default_factory=dict)
    is_whole: bool = True

    def add(self, member: Member) -> None:
        """Take a member in; of several pictures the first whose suffix is nothing but a picture's."""
        suffix = split_name(member.name)[1].lower()
        if suffix in PICTURES:
            was_plain = self.picture is not None and split_name(self.picture.name)[1].lower() in PICTURES
            self.picture = self.picture if was_plain else member
        elif suffix.rpartition(".")[2] in PICTURES:
            self.picture = self.picture or member
        elif suffix in _SMALL or suffix == "json":
            self.kept[suffix] = member


@dataclass(frozen=True, slots=True)
class _Shard:
    """One tar whose samples become rows."""

    source: SourceBytes
    members: TarMembers
    stem: str
    note: Note

    def sample_row(self, number: int, sample: Sample) -> Row:
        """The row of a sample that only the tar tells of."""
        columns: dict[str, Scalar] = {"key": valid_text(sample.key)}
        failure = None
        try:
            columns |= _described(self.members, sample)
        except ValueError as error:
            failure = ItemFailure("RowUnusable", f"the sample {sample.key!r:.80} cannot be read: {error}")
        for name, value in columns.items():
            self.note(name, value_type_name(value))
        failure = failure or unusable(columns)
        if sample.picture is not None or failure is not None:
            return self.picture_row(number, sample.picture, columns, failure)
        row = Addresses.of(self.source.uri).row(row_id(self.stem, number), columns)
        if not row.uri:
            row.uri = self.source.uri
            row.failure = ItemFailure("RowUnusable", "the sample holds neither a picture nor a url")
        return row

    def picture_row(
        self, number: int, picture: Member | None, columns: dict[str, Scalar], failure: ItemFailure | None
    ) -> Row:
        """The row whose picture is that member; None goes with a failure."""
        given = None
        if picture is not None:
            given = encode_columns({"offset": picture.offset, "size": picture.size_bytes, "name": picture.name})
        return Row(
            0,
            row_id(self.stem, number),
            self.source.uri,
            size_bytes=picture.size_bytes if picture else None,
            version=self.source.version,
            columns=encode_columns(columns) if columns else None,
            failure=failure,
            input=given,
        )


def tar_rows(source: SourceBytes, stem: str, note: Note) -> Iterator[Row]:
    """A sample an item. Raises: SourceError where the tar is damaged, after the samples before that place."""
    shard = _Shard(source, TarMembers(source, source.uri), stem, note)
    for number, sample in enumerate(samples(shard.members)):
        if sample.is_whole:
            yield shard.sample_row(number, sample)


def paired_rows(source: SourceBytes, table: SourceBytes, stem: str, note: Note) -> Iterator[Row]:
    """The rows of `table`, their pictures in the tar; then samples of the tar that the table does not know.

    Raises: SourceError when the table is damaged or has no keys.
    """
    scan = ParquetScan(table, table.uri)
    if "key" not in scan.types:
        raise SourceError(f"{table.uri} has no column 'key', so its rows cannot be found in the tar beside it")
    shard = _Shard(source, TarMembers(source, source.uri), stem, note)
    found, damage = _by_key(shard.members)
    for name, kind in scan.types.items():
        note(name, kind)
    for batch in scan.batches():
        names = list(batch.columns)
        for row, values in enumerate(zip(*batch.columns.values(), strict=True), batch.first_row):
            columns = dict(zip(names, values, strict=True))
            sample = found.pop(str(columns["key"]), None)
            failure = unusable(columns) or _missing(sample, damage)
            yield shard.picture_row(row, sample.picture if sample else None, columns, failure)
    for number, sample in enumerate(found.values(), scan.rows):
        yield shard.sample_row(number, sample)


def samples(members: Iterable[Member]) -> Iterator[Sample]:
    """Samples in the order of the tar: neighbours with the same name up to the first dot.

    Raises: SourceError where the tar is damaged, after what was begun of the sample there.
    """
    sample: Sample | None = None
    try:
        for member in members:
            if _NOT_A_SAMPLE(member.name.removeprefix("./")):
                continue
            key = split_name(member.name)[0]
            if sample is not None and sample.key != key:
                yield sample
                sample = None
            sample = sample or Sample(key)
            sample.add(member)
    except SourceError:
        if sample is not None:
            sample.is_whole = False
            yield sample
        raise
    if sample is not None:
        yield sample


def split_name(name: str) -> tuple[str, str]:
    """A member's name as key and suffix: up to and after the first dot of its last part."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix


def _by_key(members: TarMembers) -> tuple[dict[str, Sample], str]:
    """All samples by key as far as the tar can be read, and what is wrong beyond, "" when nothing is."""
    found: dict[str, Sample] = {}
    try:
        for sample in samples(members):
            found.setdefault(sample.key, sample)
    except SourceError as error:
        return found, error.message
    return found, ""


def _missing(sample: Sample | None, damage: str) -> ItemFailure | None:
    if sample is not None and sample.picture is not None:
        return None
    if damage:
        return ItemFailure("PartUnreadable", f"the picture was not found before the tar's damage: {damage}")
    return ItemFailure("RowUnusable", "the tar holds no picture of this key")


def _described(members: TarMembers, sample: Sample) -> dict[str, Scalar]:
    """What the small members say of the sample; its JSON knows best. Raises: ValueError naming the member."""
    columns: dict[str, Scalar] = {}
    told: dict[str, Scalar] = {}
    for suffix, member in sample.kept.items():
        if member.size_bytes > MAX_SMALL_BYTES:
            raise ValueError(f"{member.name} has {member.size_bytes:,} bytes, more than {MAX_SMALL_BYTES:,}")
        data = members.read(member.offset, member.size_bytes)
        if suffix != "json":
            text = data.decode("utf-8", "replace")
            columns[_SMALL[suffix]] = text if suffix == "txt" else text.strip()
            continue
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError(f"{member.name} is not a JSON object")
        told = {name: _flat(entry) for name, entry in value.items()}
    return {**columns, **told}


def _flat(value: object) -> Scalar:
    if isinstance(value, str):
        return valid_text(value)
    if value is None or isinstance(value, int | float):
        return value
    return encode_columns(value)
