"""`pagemill schema`: what a job's file may say, for editors and clusters.

Layer: `cli.commands`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pagemill_cli.commands.arguments import print_json
from pagemill_core.api.crd.generate import render_all
from pagemill_core.api.crd.schema import job_schema


def schema(
    kind: Annotated[Literal["OcrJob", "EmbeddingJob"], typer.Argument(help="The kind.")] = "OcrJob",
    crd: Annotated[bool, typer.Option("--crd", help="The Kubernetes definition, as YAML.")] = False,
) -> None:
    """Print the schema of a job's file: JSON Schema for an editor, or the definition that kubectl apply takes.

    Example: pagemill schema OcrJob --crd | kubectl apply -f -
    """
    if crd:
        typer.echo(render_all()[f"crds/{kind.lower()}s.pagemill.dev.yaml"], nl=False)
    else:
        print_json(job_schema(kind))
