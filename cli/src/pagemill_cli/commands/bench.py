"""`pagemill bench`: run a job with other sizes again and again, and learn how it scales and what it costs.

Layer: `cli.commands`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markdown import Markdown

from pagemill_cli.bench.job import read_document
from pagemill_cli.bench.measured import Measurement, best_figure, read_rows
from pagemill_cli.bench.reference_tree import read_tree
from pagemill_cli.bench.report import write_report
from pagemill_cli.bench.runners import ClusterRunner, LocalRunner, PointRunner
from pagemill_cli.bench.summary import compare as compare_sweeps
from pagemill_cli.bench.sweep import Point, Sweep, points_of, read_sweep
from pagemill_cli.bench.sweep_run import SweepRun, Tell
from pagemill_cli.bench.table import comparison_markdown
from pagemill_cli.commands.arguments import Output, out, print_json
from pagemill_cli.commands.cluster_arguments import Context, Kubeconfig, Namespace, cluster_jobs
from pagemill_cli.job_file import read_jobs, store_settings
from pagemill_cli.settings import read_settings
from pagemill_core.clock import SystemClock
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.open import open_store

app = typer.Typer(
    help="Measure how a job scales: sweeps over world size, batch size, partitions and pod sizes.",
    no_args_is_help=True,
    epilog="Example: pagemill bench run sweep.yaml",
)

Figure = Annotated[
    Literal["", "wall_s", "rank_time_mean_s", "rank_time_max_s"],
    typer.Option("--figure", help="Which time. Default: the run's by the clock where all runs have it."),
]
Plot = Annotated[bool, typer.Option("--plot/--no-plot", help="Draw sweep.png, which needs matplotlib.")]
Folder = Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder of results, or a results.csv.")]


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The sweep's YAML file.")],
    on_cluster: Annotated[bool, typer.Option("--cluster", help="One job a point on a cluster, not here.")] = False,
    keep_outputs: Annotated[
        bool, typer.Option("--keep-outputs", help="Leave each point's own output in place.")
    ] = False,
    figure: Figure = "",
    plot: Plot = True,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = "text",
) -> None:
    """Run every point of a sweep that has no record yet, then write table, plots and fits.

    Each point is the sweep's job with other sizes: here a process of its own per run, with --cluster a job per run.
    Interrupt it at any time; the same command goes on with the points that are missing. Points run repetition by
    repetition, so that a slow hour of the machine falls on all sizes alike.

    Example: pagemill bench run config/samples/redshift/sweep.yaml
    """
    sweep = read_sweep(file)
    console = Console(stderr=True)
    count = len(points_of(sweep))
    told: list[Point] = []

    def tell(point: Point, row: Measurement | None) -> None:
        if row is None:
            told.append(point)
            console.print(f"Point {point.id}: run {len(told)} of this session, {count} points in all", highlight=False)
        else:
            console.print(f"  {row.wall_s:.2f} s, {row.rows or 0:,} rows", highlight=False)

    with _runner(on_cluster, (kubeconfig, context, namespace)) as runner:
        rows = _sweep_run(sweep, runner, keep_outputs=keep_outputs, tell=tell).run()
    markdown = write_report(rows, _records(sweep), sweep.name, figure=figure, plot=plot)
    _print(markdown, rows, output)


@app.command()
def report(results: Folder, figure: Figure = "", plot: Plot = True, output: Output = "text") -> None:
    """Write table, plots and fits of a results folder anew, with another time if asked.

    Example: pagemill bench report bench/redshift --figure rank_time_max_s
    """
    rows = read_rows(results)
    folder = results if results.is_dir() else results.parent
    _print(write_report(rows, folder, rows[0].sweep if rows else "sweep", figure=figure, plot=plot), rows, output)


@app.command()
def compare(
    first: Folder,
    second: Folder,
    into: Annotated[Path | None, typer.Option("--into", help="Folder for both in one table and plot.")] = None,
    figure: Figure = "",
    output: Output = "text",
) -> None:
    """Compare two sweeps point by point: the ratio of their times, and whether the repetitions bear it out.

    Example: pagemill bench compare bench/before bench/after
    """
    one, two = read_rows(first), read_rows(second)
    chosen = figure or best_figure([*one, *two])
    found, alone = compare_sweeps(one, two, chosen)
    if into is not None:
        write_report([*one, *two], into, f"{first.name} and {second.name}", figure=chosen)
    if output == "json":
        keys = ("sizes", "world_size", "first_s", "second_s", "ratio", "low", "high", "verdict")
        print_json(
            {"figure": chosen, "points": [{key: getattr(one, key) for key in keys} for one in found], "alone": alone}
        )
        return
    out().print(Markdown(comparison_markdown(found, alone, (first.name, second.name), chosen)))


@app.command(name="import")
def import_tree(
    tree: Annotated[Path, typer.Argument(metavar="TREE", help="The folder with result-partition-… folders.")],
    into: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder for the table, plots and fits.")],
    plot: Plot = True,
    output: Output = "text",
) -> None:
    """Read the published result tree of the reference study, so that its runs stand beside new ones.

    Runs that lost ranks are kept and noted. Then: pagemill bench compare RESULTS bench/redshift --into both

    Example: pagemill bench import Results bench/published
    """
    rows = read_tree(tree)
    _print(write_report(rows, into, "reference", plot=plot), rows, output)


def _records(sweep: Sweep) -> Path:
    if "://" in sweep.output:
        return Path.cwd() / f"{sweep.name}-results"
    return Path(sweep.output)


def _sweep_run(sweep: Sweep, runner: PointRunner, *, keep_outputs: bool, tell: Tell) -> SweepRun:
    records = _records(sweep)
    if runner.source == "cluster" and "://" not in sweep.output:
        raise InvalidSpecError(
            f"output: {sweep.output} is a folder of this machine; points on a cluster write to s3://bucket/prefix",
            advice="their records still go to a folder here, named after the sweep",
        )
    settings = store_settings(read_jobs(sweep.job).jobs[0], read_settings())
    return SweepRun(
        sweep=sweep,
        document=read_document(Path(sweep.job)),
        runner=runner,
        open_output=lambda uri: open_store(uri, settings),
        outputs=sweep.output if "://" in sweep.output else str(records / "outputs"),
        records=records / "points",
        keeps_outputs=keep_outputs,
        tell=tell,
    )


@contextmanager
def _runner(on_cluster: bool, choice: tuple[str, str, str]) -> Iterator[PointRunner]:
    if not on_cluster:
        yield LocalRunner(SystemClock())
        return
    with cluster_jobs(*choice) as jobs:
        yield ClusterRunner(jobs, SystemClock())


def _print(markdown: str, rows: list[Measurement], output: str) -> None:
    if output == "json":
        print_json([row.model_dump(mode="json") for row in rows])
        return
    out().print(Markdown(markdown))
