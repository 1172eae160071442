"""The commands. Their work is imported when they run, so that help and mistakes answer at once."""

import asyncio
import gc
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from app import __version__
from app.cli.nginx import nginx
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.settings import Settings

T = TypeVar("T")

EXIT_CONFIG = 2
EXIT_INTERRUPTED = 130

cli = typer.Typer(
    name="run.py",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line. What the operator can put right ends with one sentence on stderr and exit code 2."""
    try:
        cli()
    except ConfigError as error:
        sys.stderr.write(f"magpie: {error}\n")
        sys.exit(EXIT_CONFIG)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


@cli.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Magpie IM, self-hosted group chat. Without a command it serves.

    Settings come from config/*.toml and from the environment (IM_SECTION__KEY); `checkconfig` shows them all.
    """
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        serve()


@cli.command()
def serve() -> None:
    """Serve this process's role until SIGTERM or Ctrl+C (default).

    PostgreSQL and Valkey are started with it where IM_POSTGRES__DSN or IM_REDIS__URL is empty, and the database is
    brought up to date.
    """
    from app.settings import load

    settings = load()  # a mistake there is said before the rest is read
    gc.disable()  # what is imported stays; to look for garbage in it takes a tenth of the start
    from app import log
    from app.cli.serve import serve as run_server

    gc.freeze()
    gc.enable()

    log.configure(settings.log.level, settings.log.format)
    sys.exit(_run(run_server(settings)))


@cli.command()
def migrate() -> None:
    """Bring the database up to date and leave."""
    from app.cli.stores import migrate_only
    from app.settings import load

    _run(migrate_only(load()))


@cli.command()
def checkconfig() -> None:
    """Check the settings and print those in effect as TOML, secrets masked."""
    from app.cli.show import effective_toml
    from app.settings import load

    typer.echo(effective_toml(load()), nl=False)


@cli.command()
def openapi(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")] = None,
) -> None:
    """Print the OpenAPI 3.1 description of the HTTP API."""
    from app.cli.describe import openapi_json
    from app.cli.output import write

    write(openapi_json(), output)


cli.command()(nginx)


@cli.command()
def chat(
    url: Annotated[str, typer.Option(help="Address of the server.")] = "http://localhost:8080",
    user: Annotated[str | None, typer.Option(help="User name; asked for if missing.")] = None,
) -> None:
    """Chat in this terminal."""
    from app.client.chat.app import run_chat

    _run(run_chat(url, user))


@cli.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended safely, and say what was done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Do this check alone; may be given several times.")
    ] = None,
    settle: Annotated[
        float,
        typer.Option(
            help="Seconds for which something in Redis or the broker must stand still to count as wrong.", min=0.1
        ),
    ] = 3.0,
    timeout: Annotated[float, typer.Option(help="Seconds that one statement may take.", min=1)] = 120.0,
    unread: Annotated[int, typer.Option(help="Members whose unread figure is counted.", min=0)] = 2000,
) -> None:
    """Prove that the data agree with themselves: numbers, counters, caches, unread figures, members, search index, dead letters.

    Works beside a running server, on its stores, without stopping anybody; without one it starts the embedded stores for itself.
    Exit code 0: nothing is wrong. 1: something is; the output says what to do. 2: it could not look. See docs/operations.md.
    """
    from app.cli.doctor import examine

    sys.exit(
        _run(
            examine(
                _settings(),
                repair=repair,
                as_json=as_json,
                only=only or (),
                settle_s=settle,
                statement_s=timeout,
                unread_max=unread,
            )
        )
    )


cluster = typer.Typer(name="cluster", help="The processes of a cluster.", no_args_is_help=True)
cli.add_typer(cluster)


@cluster.callback()
def _cluster() -> None:
    """The processes of a cluster."""


@cluster.command("status")
def cluster_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show gateways, apis, consumers, their versions, the registry, and who reads which partition of the log.

    Run it with the settings of an api, where PostgreSQL, the registry, the broker and the gateways can be reached.
    Exit code 0: nothing is wrong. 1: something is; the last lines say what. 2: it could not look. See docs/operations.md.
    """
    from app.cli.cluster_status import status

    sys.exit(_run(status(_settings(), as_json=as_json)))


dead_letters = typer.Typer(
    name="deadletters",
    help="Sends that could not be stored: list and show them, store them after all (replay), or drop them.",
    no_args_is_help=True,
)
cli.add_typer(dead_letters)

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Ids as `list` shows them.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
All = Annotated[bool, typer.Option("--all", help="All there are now.")]


@dead_letters.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(help="Show at most this many, the oldest first.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first, without message text."""
    from app.cli.dead_letters import list_letters

    sys.exit(_run(list_letters(_settings(), limit=limit, in_json=as_json)))


@dead_letters.command("show")
def show_dead_letter(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="Id as `list` shows it.")],
    text: Annotated[
        bool, typer.Option("--text", help="Show the message text, or the bytes of a broken one, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show everything that is known of one dead letter."""
    from app.cli.dead_letters import show_letter

    sys.exit(_run(show_letter(_settings(), letter_id, text=text, in_json=as_json)))


@dead_letters.command("replay")
def replay_dead_letters(ids: Ids = None, everything: All = False) -> None:
    """Store dead letters after all, in order; permission and word filter are asked as for any send.

    What was stored meanwhile, because its sender tried again, is found and not stored twice. A dead letter goes when its message is known
    to be stored; one that is refused stays. Exit code 0: all are stored. 1: some are not. 2: it could not be tried.
    """
    from app.cli.dead_letters import replay_letters

    sys.exit(_run(replay_letters(_settings(), ids or (), everything=everything)))


@dead_letters.command("drop")
def drop_dead_letters(
    ids: Ids = None,
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove dead letters for good; their messages will never appear."""
    from app.cli.dead_letters import drop_letters

    def confirm(question: str) -> bool:
        if not yes and not sys.stdin.isatty():
            raise ConfigError("Nobody can be asked here; say --yes to drop them.")
        return yes or typer.confirm(question)

    sys.exit(_run(drop_letters(_settings(), ids or (), everything=everything, confirm=confirm)))


def _settings() -> "Settings":
    """For commands whose stdout is their answer: logs go to stderr, and only errors."""
    from app import log
    from app.settings import load

    settings = load()
    log.configure("error", settings.log.format, sys.stderr)
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    import stamina.instrumentation
    import uvloop

    # Waiting for a store is told as a step, once; a log line for each attempt would bury the sentence at the end.
    stamina.instrumentation.set_on_retry_hooks([])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
