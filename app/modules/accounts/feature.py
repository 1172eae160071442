"""The accounts put together: what other rooms use of them."""

from collections.abc import Callable
from dataclasses import dataclass

from app.delivery.publisher import Publisher
from app.modules.accounts.handlers import AccountHandlers
from app.modules.accounts.passwords import Passwords
from app.modules.accounts.repository import AccountRepository, SessionRepository
from app.modules.accounts.service import AccountService, IdSource
from app.modules.accounts.sessions import SessionService
from app.modules.accounts.tickets import TicketService
from app.modules.accounts.tokens import Tokens
from app.settings import Settings
from app.storage.postgres import Postgres
from app.storage.redis import Redis


@dataclass(frozen=True, slots=True)
class AccountsFeature:
    """`sessions` and `tickets` turn credentials into principals; `passwords` has threads to be stopped."""

    service: AccountService
    sessions: SessionService
    tickets: TicketService
    passwords: Passwords
    handlers: AccountHandlers


def accounts_feature(
    postgres: Postgres,
    redis: Redis,
    publisher: Publisher,
    ids: IdSource,
    gateway: Callable[[int, str | None], tuple[str, str]],
    settings: Settings,
) -> AccountsFeature:
    """Build everything from its parts; does no I/O."""
    o = settings.auth
    accounts, stored = AccountRepository(postgres), SessionRepository(postgres)
    sessions = SessionService(
        postgres,
        stored,
        accounts,
        Tokens(o.secret.get_secret_value()),
        publisher,
        ttl_s=o.token_ttl_s,
        cache_s=o.session_cache_s,
        cache_max=o.session_cache_max,
        linger_s=settings.lookups.linger_ms / 1000,
        batch_max=settings.lookups.batch_max,
        waiting_max=settings.lookups.waiting_max,
    )
    passwords = Passwords(rounds=o.bcrypt_rounds, threads=o.bcrypt_threads, max_waiting=o.bcrypt_max_waiting)
    service = AccountService(postgres, accounts, sessions, passwords, ids)
    tickets = TicketService(redis, sessions, o.ticket_ttl_s)
    handlers = AccountHandlers(service, sessions, tickets, gateway)
    return AccountsFeature(service, sessions, tickets, passwords, handlers)
