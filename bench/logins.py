"""`python -m bench.logins`: does the time of a refused login tell whether the name exists?

Logins with a wrong password, in turn for a name that exists and for one that does not, one at a time over HTTP.
"""

import asyncio
import random
import secrets
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import typer
from aiohttp import ClientSession
from rich.console import Console
from rich.progress import track

from bench.server import BenchError, own_server, own_stores

LIMITS = {"IM_LIMITS__LOGIN_PER_MINUTE": "1000000"}
"""The default would stop us after the tenth try."""


async def refused_ms(http: ClientSession, url: str, name: str) -> float:
    """One login that must fail. Raises BenchError when it does not."""
    start = perf_counter()
    async with http.post(
        f"{url}/auth/login", json={"username": name, "password": secrets.token_hex(8) + "x1"}
    ) as answer:
        await answer.read()
        if answer.status != 401:
            raise BenchError(f"A login answered {answer.status} instead of 401.")
    return (perf_counter() - start) * 1000


async def measure(tries: int, seed: int, console: Console) -> dict[str, list[float]]:
    """Milliseconds of each try, for `existing` and `unknown` names."""
    chosen = random.Random(seed)
    taken: dict[str, list[float]] = {"existing": [], "unknown": []}
    with tempfile.TemporaryDirectory(prefix="magpie-bench-") as name:
        folder = Path(name)
        async with (
            own_stores(folder / "stores", console.print) as stores,
            own_server(stores, folder, LIMITS, console.print) as target,
            ClientSession() as http,
        ):
            body = {"username": "known_name", "password": secrets.token_hex(8) + "x1"}
            async with http.post(f"{target.api_url}/auth/register", json=body) as answer:
                if answer.status != 201:
                    raise BenchError(f"Registering answered {answer.status}.")
            for number in track(range(tries), "logging in", console=console):
                kinds = ["existing", "unknown"]
                chosen.shuffle(kinds)
                for kind in kinds:
                    user = "known_name" if kind == "existing" else f"nobody_{number}"
                    taken[kind].append(await refused_ms(http, target.api_url, user))
    return taken


def main(
    tries: Annotated[int, typer.Option(help="logins of each kind", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="of the order")] = 1,
) -> None:
    """Print both medians and how far they are apart."""
    console = Console()
    try:
        taken = asyncio.run(measure(tries, seed, console))
    except BenchError as error:
        console.print(str(error), style="red")
        sys.exit(1)
    existing, unknown = median(taken["existing"]), median(taken["unknown"])
    console.print(f"existing name {existing:.1f} ms, unknown name {unknown:.1f} ms: {unknown / existing - 1:+.1%}")


if __name__ == "__main__":
    typer.run(main)
