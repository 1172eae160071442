"""The servers of another process, for a command that works beside it."""

import os
from pathlib import Path

from app.errors import ConfigError
from app.storage.embedded.folder import check_socket_path, is_locked, socket_path
from app.storage.embedded.postgres import dsn_in, is_cluster
from app.storage.embedded.servers import EmbeddedServers
from app.storage.embedded.valkey import url_in


def running_servers(data_dir: Path) -> EmbeddedServers | None:
    """Where the servers of the process that holds `data_dir` answer, once it has started them; None when nobody holds it.

    Changes nothing. Only the user of that process and root can connect. Raises ConfigError.
    """
    if not is_locked(data_dir):
        return None
    data_dir = data_dir.resolve()
    folder = socket_path(data_dir)
    owner = (data_dir / "postgres").stat().st_uid if (data_dir / "postgres").exists() else os.geteuid()
    check_socket_path(folder, data_dir, owner)
    if folder.exists() and not os.access(folder, os.X_OK):
        raise ConfigError(
            f"{folder} may be entered only by the user whose server runs on {data_dir}; run this as that user."
        )
    return EmbeddedServers(dsn_in(folder), url_in(folder))


def has_database(data_dir: Path) -> bool:
    """Whether a database was ever made in the folder."""
    return is_cluster(data_dir / "postgres")
