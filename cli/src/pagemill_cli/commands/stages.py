"""`pagemill stages`: the stages that a job may have, a new one, and a trial of a job's own.

Layer: `cli.commands`.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from pagemill_cli.commands.arguments import ApiKey, JobFile, JobName, Output, Processes, out, print_json, printable
from pagemill_cli.local.preview import PreviewRequest, preview
from pagemill_cli.local.sample import Sample
from pagemill_cli.output.target import environment_of_file
from pagemill_cli.settings import read_settings
from pagemill_cli.stage_scaffold import class_name, scaffold
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.environment import JobEnvironment
from pagemill_worker.kinds.processes import pipeline_of
from pagemill_worker.machine import gpu_names, machine
from pagemill_worker.stages.loading import found_classes
from pagemill_worker.stages.pipeline import OCR, PICTURES, TENSORS, TEXTS, Pipeline
from pagemill_worker.stages.settings import StagesSettings
from pagemill_worker.stages.sizes import FIELDS
from pagemill_worker.stages.sizing import Wanted, wanted

app = typer.Typer(
    help="List stages, make a package with one of your own, try a job's stages on a few items.",
    no_args_is_help=True,
    epilog="Example: pagemill stages test job.yaml --items 8",
)
PIPELINES: Mapping[str, Pipeline] = {
    "OcrJob": OCR,
    "EmbeddingJob of pictures and books": PICTURES,
    "EmbeddingJob of texts": TEXTS,
    "EmbeddingJob of tensors": TENSORS,
}
SHOWN_NAMES = {"batch_size": "batchSize"}


@app.command("list")
def list_stages(output: Output = "text") -> None:
    """List the built-in stages of each kind of job, and the classes that `use` may name here.

    Classes come from the packages in PAGEMILL_STAGES_PACKAGES, and from Pagemill's own.

    Example: pagemill stages list
    """
    classes = [
        {
            "use": use,
            "takes": kind.takes.__name__,
            "gives": kind.gives.__name__,
            "batchSize": kind.batch_size,
            "what": (inspect.getdoc(kind) or "").partition("\n")[0],
        }
        for use, kind in found_classes(StagesSettings()).items()
    ]
    chains = [
        {
            "job": job,
            "stages": [
                {
                    "name": stage.name,
                    "ownStagesTake": stage.gives.__name__ if stage.gives else None,
                    "fields": [SHOWN_NAMES.get(name, name) for name in FIELDS[stage.name]],
                }
                for stage in pipeline.built_in
            ],
        }
        for job, pipeline in PIPELINES.items()
    ]
    if output == "json":
        print_json({"jobs": chains, "classes": classes})
        return
    _print_list(chains, classes)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The package's name, such as word-count.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where its folder is made. Default: here.")] = Path(),
    takes: Annotated[
        Literal["PageText", "PageImage", "Vector", "str"],
        typer.Option("--takes", help="What the stage takes and gives."),
    ] = "PageText",
    output: Output = "text",
) -> None:
    """Write a package with one stage and its test. A folder that is there already is left alone.

    Example: pagemill stages new word-count
    """
    texts = scaffold(name, takes)
    place = folder / name
    if place.exists():
        raise InvalidSpecError(f"{place} is there already", advice="choose another name, or remove it")
    for path, text in texts.items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    package = name.replace("-", "_")
    use = f"{package}.stages:{class_name(name)}"
    if output == "json":
        print_json({"folder": str(place), "files": sorted(texts), "use": use, "packages": package})
        return
    for path in texts:
        typer.echo(str(place / path))
    typer.echo(f"→ pip install --editable {place}; export PAGEMILL_STAGES_PACKAGES={package}")
    typer.echo(f"→ in the job's file: stages: [{{name: {name}, use: {use}}}]")


@app.command()
def test(
    file: JobFile,
    items: Annotated[int, typer.Option("--items", "-n", min=1, help="How many items, spread over the source.")] = 8,
    job: JobName = "",
    processes: Processes = 1,
    api_key: ApiKey = "",
    log: Annotated[
        Path, typer.Option("--log", help="File for what stages and engines print. Default: nowhere.")
    ] = Path(os.devnull),
    output: Output = "text",
) -> None:
    """Send a few items through all stages of a job, here, and say what each stage took. Writes no results.

    The job is checked and planned as `pagemill run` would, its stages run in the same processes. Ends with status 3
    when an item failed otherwise than by being filtered.

    Example: pagemill stages test job.yaml --items 8
    """
    environment = environment_of_file(file, read_settings(), job, api_key)
    with tempfile.TemporaryDirectory(prefix="pagemill-stages-") as folder:
        aside = environment.job.spec.output.model_copy(update={"uri": str(Path(folder) / "out")})
        spec = environment.absolute_job().spec.model_copy(update={"output": aside})
        apart = replace(environment, job=environment.job.model_copy(update={"spec": spec}))
        request = PreviewRequest(processes=processes or 1, environment=dict(os.environ), sample=items, log=log)
        sample = preview(apart, request).sample
    if sample is None or not sample.items:
        raise InvalidSpecError("the source has no item that could be tried", advice="pagemill plan says what it has")
    sizes = _wanted(environment, sample)
    if output == "json":
        print_json(_as_json(sample, sizes))
    else:
        _print_trial(sample, sizes)
    raise typer.Exit(3 if sample.failed > sample.filtered else 0)


def _wanted(environment: JobEnvironment, sample: Sample) -> Wanted:
    on_gpu = pipeline_of(environment.job).model in ("encode", "infer") and bool(gpu_names(os.environ))
    seconds = {name: stage.seconds_per_item for name, stage in sample.stages.items()}
    return wanted(seconds, machine().cores, model_on_gpu=on_gpu)


def _as_json(sample: Sample, sizes: Wanted) -> dict[str, Any]:
    return {
        "items": sample.items,
        "failed": sample.failed,
        "filtered": sample.filtered,
        "loadSeconds": sample.load_seconds,
        "stages": [
            {
                "name": name,
                "items": stage.items,
                "secondsPerItem": stage.seconds_per_item,
                "share": stage.share,
            }
            for name, stage in sample.stages.items()
        ],
        "notes": [{"item": item, "notes": notes} for item, notes in sample.notes],
        "failures": [{"item": item, "class": kind, "message": message} for item, kind, message in sample.failures],
        "bottleneck": sizes.bottleneck,
        "itemsPerSecond": round(sizes.items_per_second, 3),
        "processes": sizes.processes,
        "prepareThreads": sizes.prepare_threads,
    }


def _print_trial(sample: Sample, sizes: Wanted) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("STAGE", "ITEMS", "SECONDS AN ITEM", "SHARE"):
        table.add_column(column, justify="left" if column == "STAGE" else "right")
    for name, stage in sample.stages.items():
        share = f"{stage.share:.0%}"
        table.add_row(escape(name), f"{stage.items:,}", f"{stage.seconds_per_item:.4f}", share)
    console = out()
    console.print(table)
    for item, notes in sample.notes:
        console.print(f"[dim]{escape(printable(item))}[/] {escape(printable(str(notes)))}", highlight=False)
    for item, kind, message in sample.failures:
        style = "yellow" if kind == "FilteredByStage" else "red"
        console.print(f"[{style}]{escape(printable(f'{item}: {kind}: {message}'))}[/]", highlight=False)
    console.print(
        f"{sample.items:,} items, {sample.failed:,} failed, {sample.filtered:,} of them filtered; "
        f"loading took {sample.load_seconds:.1f} s",
        highlight=False,
    )
    console.print(
        f"[dim]→[/] {sizes.bottleneck} takes most; this machine would do {sizes.items_per_second:.2f} items a second "
        f"with {sizes.processes} processes of {sizes.prepare_threads} threads that prepare",
        highlight=False,
    )


def _print_list(chains: list[dict[str, Any]], classes: list[dict[str, Any]]) -> None:
    console = out()
    for chain in chains:
        names = " → ".join(
            f"{stage['name']} ({stage['ownStagesTake']})" if stage["ownStagesTake"] else stage["name"]
            for stage in chain["stages"]
        )
        console.print(f"[bold]{chain['job']}[/]  {names}", highlight=False)
    console.print("[dim]A stage of your own may stand after one with a type in brackets, which it takes and gives.[/]")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("USE", "TAKES", "GIVES", "BATCH", "WHAT IT DOES"):
        table.add_column(column)
    for found in classes:
        table.add_row(
            escape(found["use"]), found["takes"], found["gives"], str(found["batchSize"]), escape(found["what"])
        )
    console.print(table)
