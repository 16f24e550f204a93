"""Near-duplicates as files: CSV, JSON, Parquet, or a contact sheet.

Layer: `cli.output`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pagemill_cli.output.target import Target
from pagemill_cli.output.thumbnails import Thumbnails
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.search.dedup import Duplicates
from pagemill_worker.embed.search.sheet import Card, Group, Sheet, write_sheet

COLUMNS = ("group", "id", "score", "keep", "source_uri", "key", "caption", "page", "width_px", "height_px")
FORMS = (".csv", ".json", ".parquet")
MAX_GROUPS = 60  # on a sheet
MAX_SHOWN = 8  # of a group on a sheet

_SCHEMA = pa.schema(
    [
        ("group", pa.int64()),
        ("id", pa.string()),
        ("score", pa.float32()),
        ("keep", pa.bool_()),
        ("source_uri", pa.string()),
        ("key", pa.string()),
        ("caption", pa.string()),
        ("page", pa.int32()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
    ]
)


def check_form(path: Path) -> None:
    """Raises: InvalidSpecError when the file's name does not say its form."""
    if path.suffix not in FORMS:
        raise InvalidSpecError(f"{path} is of no known form", advice=f"let its name end in {', '.join(FORMS)}")


def write_duplicates(found: Duplicates, path: Path) -> None:
    """Write a row for each member of each group, the kept one first. The name's ending decides the form."""
    check_form(path)
    rows = list(as_rows(found))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path, compression="zstd")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def as_rows(found: Duplicates) -> Iterator[dict[str, Any]]:
    """Groups as flat rows, with `COLUMNS` as their keys."""
    for group in found.groups:
        for member in group.members:
            row = member.row
            yield {
                "group": group.number,
                "id": row.id,
                "score": round(member.score, 6),
                "keep": member.is_kept,
                "source_uri": row.source_uri,
                "key": row.key,
                "caption": row.caption,
                "page": row.page,
                "width_px": row.width_px,
                "height_px": row.height_px,
            }


def write_duplicates_sheet(target: Target, found: Duplicates, threshold: float, path: Path) -> None:
    """Write the largest groups as a contact sheet."""
    shown = [(group, group.members[:MAX_SHOWN]) for group in found.groups[:MAX_GROUPS]]
    small = iter(Thumbnails(target).of([member.row for _, members in shown for member in members]))
    groups = []
    for group, members in shown:
        cards = []
        for rank, member in enumerate(members, 1):
            thumbnail = next(small)
            cards.append(
                Card(
                    rank=rank,
                    score=member.score,
                    row=member.row,
                    picture=thumbnail.picture,
                    why=thumbnail.why,
                    is_kept=member.is_kept,
                )
            )
        groups.append(Group(cards, f"Group {group.number}", f"{len(group.members):,} rows"))
    facts = {
        "Output": target.uri,
        "Threshold": f"{threshold:g}",
        "Rows": f"{found.rows:,}",
        "Groups": f"{len(found.groups):,}",
        "Redundant": f"{found.redundant:,}",
        "Compared": found.how,
    }
    remark = "The first of each group is the largest picture; scores are cosines with it."
    with path.open("wb") as out:
        write_sheet(out, Sheet(asked="Near-duplicates", groups=groups, facts=facts, remark=remark))
