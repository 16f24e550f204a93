"""Making again what users see, from committed data: views that are gone or damaged, the dataset, merged tables.

Layer: `cli.output`, above `verify`. Writes only what finalizing would write, and never over a newer run's file.
"""

from __future__ import annotations

from collections.abc import Iterable

from pagemill_cli.output.target import Target
from pagemill_cli.output.verify import Problem, RunCheck, verify_output
from pagemill_core.errors import IntegrityError, ItemError, OutputBusyError
from pagemill_core.work import layout as keys
from pagemill_core.work.commit import crc32, read_marker
from pagemill_core.work.conditional import Writer
from pagemill_core.work.finalize import read_success
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.publish import META_CRC32, META_SEQ, View, publish_shard
from pagemill_core.work.records import PlanPointer
from pagemill_core.work.rollup import segment_markers

TRIES = 5


def repair_run(target: Target, check: RunCheck) -> RunCheck:
    """Mend what can be mended of a run that was checked. Returns: a check of the run as it is then.

    What cannot be made again, because the committed data is itself damaged or because a view shows the page (pdf) and
    the page is gone, stays a problem; `note` says why.
    """
    if not any(problem.is_repairable for problem in check.problems):
        return check
    pointer = read_plan(target.writer, RunLayout(check.run))
    if pointer is None:
        return check
    notes = _repair_views(target, pointer, _shards(check.problems))
    if any(problem.fault == "DatasetWrong" for problem in check.problems):
        notes += _repair_dataset(target, pointer)
    if any(problem.fault == "TableWrong" for problem in check.problems):
        notes += _repair_merged(target, pointer, check.problems)
    (after,) = verify_output(target, [check.held])
    after.problems += [problem for problem in check.problems if problem.fault == "IndexWrong"]
    after.note = "; ".join(notes)
    return after


def _shards(problems: Iterable[Problem]) -> list[int]:
    return sorted({problem.shard for problem in problems if problem.is_repairable and problem.shard is not None})


def _repair_views(target: Target, pointer: PlanPointer, shards: Iterable[int]) -> list[str]:
    """Write the views of some shards again. Returns: why some could not be."""
    kind, layout = target.kind(pointer), RunLayout(pointer.run)
    notes = []
    for shard in shards:
        try:
            marker = read_marker(target.writer, layout, shard)
            if marker is None:
                continue
            views = list(kind.views(marker))
        except (IntegrityError, ItemError) as error:
            notes.append(f"the views of shard {shard} cannot be made again: {error.message}")
            continue
        for view in views:
            _restore(target.writer, view, layout.seq)
        publish_shard(target.writer, layout, shard, views)
    return notes


def _restore(writer: Writer, view: View, seq: int) -> None:
    """Put `view` in place unless it is there byte for byte or a newer run's stands there.

    Publishing trusts an object's size and recorded checksum; here the bytes themselves are in doubt.
    """
    meta = {META_SEQ: str(seq), META_CRC32: crc32(view.data)}
    for _ in range(TRIES):
        blob = writer.get(view.key)
        if blob is None:
            if writer.retrying(lambda: writer.store.put_if_absent(view.key, view.data, meta=meta)) is not None:
                return
            continue
        owner = blob.meta.get(META_SEQ, "0")
        if blob.data == view.data or (owner.isdecimal() and int(owner) > seq):
            return
        token = blob.token
        if writer.retrying(lambda at=token: writer.store.put_if_match(view.key, view.data, at, meta=meta)) is not None:  # type: ignore[misc]
            return
    raise OutputBusyError(f"{view.key} is written by others all the time", advice="stop them, then repair again")


def _repair_merged(target: Target, pointer: PlanPointer, problems: Iterable[Problem]) -> list[str]:
    """Write the whole-run files of results anew, the damaged ones in place of what is there."""
    success = read_success(target.writer, RunLayout(pointer.run))
    if success is None:
        return ["the merged table cannot be made again: the run has no success record"]
    for problem in problems:
        if problem.fault == "TableWrong":  # publishing trusts recorded checksums, and here the bytes are in doubt
            target.writer.retrying(lambda key=problem.key: target.writer.store.delete(key))  # type: ignore[misc]
    try:
        target.kind(pointer).mend_merged(pointer, success.totals)
    except IntegrityError as error:
        return [f"the merged table cannot be made again: {error.message}"]
    return []


def _repair_dataset(target: Target, pointer: PlanPointer) -> list[str]:
    """Write the run's parts anew: they are a function of committed data, so whole ones keep their bytes."""
    kind, layout = target.kind(pointer), RunLayout(pointer.run)
    try:
        for segment in range(-(-pointer.shards // keys.SEGMENT_SHARDS)):
            kind.write_dataset(segment, list(segment_markers(target.writer, layout, segment)))
    except IntegrityError as error:
        return [f"the dataset cannot be made again: {error.message}"]
    return []
