"""Who is there: log in or register, in a few questions. The token stays in memory."""

import aiohttp
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import ANSI
from rich.console import Console

from app.client.api import Api
from app.client.chat.render import problem
from app.client.chat.texts import Texts
from app.client.models import Login
from app.errors import BadRequest, Conflict, RateLimited, Unauthorized


async def log_in(url: str, user: str | None, console: Console, text: Texts) -> Login:
    """Ask until the server agrees. Raises EOFError or KeyboardInterrupt when the person leaves, AppError, ClientError."""
    async with aiohttp.ClientSession() as http:
        api = Api(http, url)
        # The first call tells whether there is a server, before anybody types a password.
        await probe(api)
        while True:
            choice = (await _ask(text("login_or_register"))).strip().lower()
            if choice[:1] not in ("l", "r"):
                continue
            name = user or (await _ask(text("ask_user"))).strip()
            try:
                if choice[0] == "r":
                    if (password := await _new_password(console, text)) is None:
                        continue
                    return await api.register(name, password)
                return await api.login(name, await _ask(text("ask_password"), hidden=True))
            except (BadRequest, Conflict) as error:
                console.print(problem(text.error(error)))
                user = None  # another name is needed
            except (RateLimited, Unauthorized) as error:
                console.print(problem(text.error(error)))


async def probe(api: Api) -> None:
    """Raises Unreachable when no server of ours answers."""
    try:
        await api.me()
    except Unauthorized:
        return


async def _new_password(console: Console, text: Texts) -> str | None:
    password = await _ask(text("ask_new_password"), hidden=True)
    if password == await _ask(text("ask_again"), hidden=True):
        return password
    console.print(problem(text("not_the_same")))
    return None


async def _ask(question: str, *, hidden: bool = False) -> str:
    session: PromptSession[str] = PromptSession(ANSI(question), is_password=hidden)
    return await session.prompt_async()
