"""The command line: `python -m testcluster up|down|status|logs|build|kubectl|inside|image`.

Layer: project tooling. Says what it does on standard error; standard output holds what another program may read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from testcluster import binaries, images
from testcluster.cluster import Cluster, all_names
from testcluster.errors import ClusterError
from testcluster.layout import binary
from testcluster.settings import Settings

UNAVAILABLE = 69
_LOG_LINES = 50


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _up(given: argparse.Namespace) -> int:
    cluster = Cluster(given.name)
    settings = Settings(
        name=given.name,
        level=given.level,
        kwok_nodes=given.kwok_nodes,
        kwok_config=str(Path(given.kwok_config).resolve()) if given.kwok_config else "",
        image_store_mib=given.image_store_mib,
        feature_gates=given.feature_gates,
    )
    seconds = cluster.up(settings)
    say(f"{given.name} is ready{f' after {seconds:.1f} s' if seconds else ' already'}. Use it with:")
    sys.stdout.write(f"export KUBECONFIG={cluster.kubeconfig}\n")
    return 0


def _down(given: argparse.Namespace) -> int:
    for name in all_names() if given.all else [given.name]:
        Cluster(name).down()
        say(f"{name} is gone")
    return 0


def _status(given: argparse.Namespace) -> int:
    names = all_names()
    if not names:
        say("No cluster stands. `python -m testcluster up` makes one.")
    for name in names:
        status = Cluster(name).status()
        level = status.settings.level if status.settings else "?"
        sys.stdout.write(f"{name}  {status.phase}  {level}  ready after {status.state.ready_after_s:g} s\n")
        for part, state in status.state.parts.items():
            sys.stdout.write(f"  {part:26} {state:10} {Cluster(name).layout.log(part)}\n")
        if status.state.problem:
            sys.stdout.write(status.state.problem + "\n")
    mine = Cluster(given.name).status()
    return 0 if mine.phase in (None, "ready") else 1


def _logs(given: argparse.Namespace) -> int:
    layout = Cluster(given.name).layout
    logs = [layout.log(given.part)] if given.part else sorted(layout.logs.glob("*.log"))
    for log in logs:
        if not log.is_file():
            say(f"{log} does not exist; there are {', '.join(sorted(path.stem for path in layout.logs.glob('*.log')))}")
            return 1
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-given.lines :]
        sys.stdout.write("\n".join([f"==> {log} <==", *text]) + "\n")
    return 0


def _part(given: argparse.Namespace) -> int:
    cluster = Cluster(given.name)
    if given.verb == "start":
        cluster.start_part(given.part)
    else:
        cluster.stop_part(given.part, kill=given.verb == "kill")
    return 0


def _build(given: argparse.Namespace) -> int:
    if given.prune:
        for folder in binaries.prune():
            say(f"Deleted {folder}")
    sys.stdout.write(f"{binaries.ensure(given.program or list(binaries.PROGRAMS))}\n")
    return 0


def _kubectl(given: argparse.Namespace) -> int:
    cluster = Cluster(given.name)
    cluster.require_ready()
    return _become([str(binary("kubectl")), f"--kubeconfig={cluster.kubeconfig}", *given.arguments])


def _inside(given: argparse.Namespace) -> int:
    command = given.arguments or [os.environ.get("SHELL", "/bin/sh")]
    return _become(Cluster(given.name).inside(command))


def _become(command: Sequence[str]) -> int:
    sys.stderr.flush()
    os.execvp(command[0], list(command))


def _image(given: argparse.Namespace) -> int:
    arguments = dict(each.split("=", 1) for each in given.build_arg)
    images.build_image(Path(given.file), given.tag, build_args=arguments, context=Path(given.context))
    if given.load:
        images.load_image(Cluster(given.name), given.tag)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testcluster", description="A real Kubernetes for tests, on this machine.")
    parser.add_argument("--name", default="pagemill", help="which cluster (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        return one

    up = command("up", _up, "Start a cluster and print how to use it")
    up.add_argument("--level", choices=("control-plane", "node"), default="control-plane")
    up.add_argument("--kwok-nodes", type=int, default=0, metavar="N", help="pretended nodes")
    up.add_argument("--kwok-config", default="", metavar="FILE", help="kwok's Stages in place of its own")
    up.add_argument("--image-store-mib", type=int, default=0, metavar="MIB", help="keep images in memory")
    up.add_argument("--feature-gates", default="", help="for the API server, controller manager and scheduler")
    down = command("down", _down, "Stop a cluster and remove all of it")
    down.add_argument("--all", action="store_true", help="every cluster of this user")
    command("status", _status, "Say how every cluster is, part by part")
    logs = command("logs", _logs, "Show the end of the logs")
    logs.add_argument("part", nargs="?", default="")
    logs.add_argument("--lines", type=int, default=_LOG_LINES)
    for verb in ("start", "stop", "kill"):
        one = command(verb, _part, f"{verb.capitalize()} one part of a standing cluster")
        one.add_argument("part")
        one.set_defaults(verb=verb)
    build = command("build", _build, "Build the programs and print their folder")
    build.add_argument("program", nargs="*", choices=[*binaries.PROGRAMS, []], help="default: all")
    build.add_argument("--prune", action="store_true", help="delete programs of other versions first")
    for name, run, text in (
        ("kubectl", _kubectl, "Run kubectl on the cluster"),
        ("inside", _inside, "Run a command inside the node (root)"),
    ):
        command(name, run, text).add_argument("arguments", nargs=argparse.REMAINDER)
    image = command("image", _image, "Build an image from a Dockerfile (root)")
    image.add_argument("tag")
    image.add_argument("--file", default="Dockerfile")
    image.add_argument("--context", default=".")
    image.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    image.add_argument("--load", action="store_true", help="load it into the node afterwards")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns: the exit status."""
    given = _parser().parse_args(arguments)
    try:
        status: int = given.run(given)
    except ClusterError as error:
        say(str(error))
        return UNAVAILABLE
    except BrokenPipeError:
        return 0
    return status
