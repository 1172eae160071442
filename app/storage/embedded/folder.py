"""The data folder: one process at a time, and short paths for sockets inside it or in the temporary folder."""

import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.errors import ConfigError

MAX_SOCKET_PATH_BYTES = 103
"""`sun_path` holds 107 bytes and a NUL on Linux, 103 and a NUL on macOS."""
LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
URL_SAFE_PATH = re.compile(r"[A-Za-z0-9/._-]+")
"""Paths of other characters need quoting that the drivers' URL parsers do not agree on."""


@contextmanager
def locked_folder(data_dir: Path) -> Iterator[Path]:
    """Create `data_dir` if need be and hold it for this process alone; gives its absolute path without links.

    The lock belongs to the open file, so the kernel drops it however the process ends, and children do not inherit it.
    Raises ConfigError when another process holds it or the folder cannot be written.
    """
    data_dir = data_dir.absolute()
    try:
        # 711: when root starts the servers as another user, that one must be able to pass through.
        data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unusable(data_dir, error) from None
    try:
        _lock(descriptor, fcntl.LOCK_EX, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield data_dir.resolve()
    finally:
        os.close(descriptor)


def check_unlocked(data_dir: Path) -> None:
    """Raise ConfigError if another process holds the folder now. Only for an early word: taking the lock decides."""
    try:
        descriptor = os.open(data_dir.absolute() / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _lock(descriptor, fcntl.LOCK_SH, data_dir.absolute())
    finally:
        os.close(descriptor)


def is_locked(data_dir: Path) -> bool:
    """Whether a process holds the folder now. Raises ConfigError when that cannot be told."""
    try:
        descriptor = os.open(data_dir.absolute() / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"Cannot look into the data folder {data_dir}: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, kind: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        raise ConfigError(
            f"The data folder {data_dir} is in use by process {holder}; stop that process or set IM_DATA_DIR."
        ) from None
    except OSError as error:
        raise unusable(data_dir, error) from None


def unusable(path: Path, error: OSError) -> ConfigError:
    """The error for a folder that cannot be written."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return ConfigError(
        f"Cannot write to the data folder {path}: {reason}; set IM_DATA_DIR to a folder you may write to."
    )


def private_folder(path: Path, uid: int, gid: int) -> Path:
    """Make `path` a folder that only `uid` (and root) can enter; contents of another owner are handed over."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) != 0o700:
            path.chmod(0o700)
        if os.geteuid() == 0 and path.stat().st_uid != uid:
            for parent, folders, files in os.walk(path):
                for name in (*folders, *files):
                    os.lchown(Path(parent, name), uid, gid)
            os.chown(path, uid, gid)
    except OSError as error:
        raise unusable(path, error) from None
    return path


def socket_path(data_dir: Path) -> Path:
    """Where sockets are: `run` in the data folder (absolute, without links), or a temporary folder where that path is too long."""
    folder = data_dir / "run"
    if fits_socket(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path(tempfile.gettempdir()).resolve() / f"magpie-{os.geteuid()}-{digest}"


def check_socket_path(folder: Path, data_dir: Path, uid: int) -> None:
    """Raise ConfigError for a folder in the temporary one that somebody else prepared: it must not be trusted."""
    if folder.parent == data_dir:
        return
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid not in (os.geteuid(), uid)):
        raise ConfigError(f"{folder} belongs to another user; remove it or set IM_DATA_DIR to a shorter path.")


@contextmanager
def socket_folder(data_dir: Path, uid: int, gid: int) -> Iterator[Path]:
    """A private folder for sockets, at `socket_path`."""
    folder = socket_path(data_dir)
    check_socket_path(folder, data_dir, uid)
    try:
        yield private_folder(folder, uid, gid)
    finally:
        with suppress(OSError):  # a server that could not be stopped keeps its socket
            folder.rmdir()


def fits_socket(folder: Path) -> bool:
    """Whether sockets in `folder` can be bound and written in a URL."""
    path = folder / LONGEST_SOCKET_NAME
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES and URL_SAFE_PATH.fullmatch(str(path)) is not None
