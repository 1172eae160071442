"""As whom the servers run, and what ties their life to ours."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.errors import ConfigError

PROBE_TIMEOUT_S = 5.0


class DoesNotRun(ConfigError):
    """A server program does not start here, or not in time."""


@dataclass(frozen=True)
class Launcher:
    """Puts the right prefix before a server's command line. `uid` and `gid` own its files."""

    uid: int
    gid: int
    setpriv: tuple[str, ...]

    def command(self, argv: list[str], death_signal: str) -> list[str]:
        """`argv`, run as `uid`; on Linux it gets `death_signal` (as `TERM`) when this process dies, even by SIGKILL."""
        return [*self.setpriv, "--pdeathsig", death_signal, *argv] if self.setpriv else argv


def find_launcher(data_dir: Path) -> Launcher:
    """Look up what this system offers; blocks for some milliseconds.

    PostgreSQL refuses to run as root, so there the servers run as the owner of the data folder, or as `nobody` when
    root owns it. They keep the one capability to pass folders of others, because the wheels or the data may lie under
    root's own home. Without `setpriv` (macOS) a server outlives a killed process; the next start ends it. Raises ConfigError.
    """
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0:
        usable = (setpriv,) if setpriv and _works((setpriv,)) else ()
        return Launcher(os.geteuid(), os.getegid(), usable)
    account = _account(data_dir)
    if setpriv:
        switch = (setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
        for prefix in ((*switch, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"), switch):
            if _works(prefix):
                return Launcher(account.pw_uid, account.pw_gid, prefix)
    raise DoesNotRun(
        f"PostgreSQL cannot run as root and switching to user {account.pw_name} failed;"
        " run as a normal user, install setpriv (util-linux), or set IM_POSTGRES__DSN and IM_REDIS__URL."
    )


def _account(data_dir: Path) -> pwd.struct_passwd:
    try:
        owner = data_dir.stat().st_uid
        return pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
    except (KeyError, OSError):
        raise ConfigError(
            f"PostgreSQL cannot run as root and {data_dir} has no owner with an account; run as a normal user."
        ) from None


def _works(prefix: tuple[str, ...]) -> bool:
    """Older and smaller versions of setpriv lack options, and containers may forbid some."""
    try:
        command = [*prefix, "--pdeathsig", "TERM", "true"]
        probe = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)  # noqa: S603 - ours
        return probe.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
