"""What is made once and used at every start: Kafka's jars, an empty data folder, and an archive of loaded classes.

It is 100 MB that does not depend on a checkout, so it lies in `$XDG_CACHE_HOME/magpie` (`~/.cache/magpie`) and not in `.venv`, which
`make clean` removes. The folder's name holds a hash of `pom.xml`: another version is another folder. Everything here blocks.
`python -m local.kafka` makes it all, so that no test waits for it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import ConfigError
from local.kafka.settings import JVM, properties
from local.ports import free_ports

POM = Path(__file__).with_name("pom.xml")
JAVA_MIN = 17
"""Kafka 4 servers refuse older ones."""
FETCH_TIMEOUT_S = 600.0
"""45 MB and Maven's own plugins over a slow line."""
CLUSTER_ID = "bWFncGllLWxvY2FsLTEyMw"
RUN_TIMEOUT_S = 120.0
LOOK_S = 0.1


def java() -> str:
    """The java program. Raises ConfigError when there is none or it is too old."""
    home = os.environ.get("JAVA_HOME")
    program = f"{home}/bin/java" if home else shutil.which("java")
    if program is None or not Path(program).exists():
        raise ConfigError(f"Kafka needs Java {JAVA_MIN} or newer and there is none; install it or set JAVA_HOME.")
    shown = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - found above
    version = re.search(r'version "(?:1\.)?(\d+)', shown.stderr)
    if version is None or int(version[1]) < JAVA_MIN:
        raise ConfigError(
            f"Kafka needs Java {JAVA_MIN} or newer; {program} is {version[1] if version else 'something else'}."
        )
    return program


def cache_folder() -> Path:
    """Where the jars of this `pom.xml` lie, or will."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "magpie" / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Processes that prepare the same folder wait for each other; whoever is second finds it done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def jars() -> Path:
    """The folder of jars, complete. Blocks for half a minute the first time. Raises ConfigError when they cannot be fetched."""
    folder = cache_folder() / "jars"
    if folder.exists():
        return folder
    with only_one(cache_folder()):
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigError("Kafka's jars are fetched by Maven and there is no mvn; install the package maven.")
    print("magpie: fetching Kafka with Maven, 45 MB, once", file=sys.stderr, flush=True)  # noqa: T201 - to whoever waits
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Complete or not there: a fetch cut short leaves a folder that nobody looks for.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-", ignore_cleanup_errors=True) as half:
        target = Path(half) / "jars"
        command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)  # noqa: S603 - ours
        except subprocess.TimeoutExpired:
            raise ConfigError(f"Maven did not fetch Kafka within {FETCH_TIMEOUT_S:g} s; try again.") from None
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
            raise ConfigError(f"Maven could not fetch Kafka: {lines[0] if lines else 'it says nothing'}")
        target.rename(folder)


def server_command(settings: Path, *flags: str) -> list[str]:
    """The command line of a server. Raises ConfigError as `java` and `jars` do."""
    logging = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.xml')}"
    return [java(), *JVM, *flags, logging, "-cp", f"{jars()}/*", "kafka.Kafka", str(settings)]


def formatted() -> Path:
    """The files of an empty data folder. Kafka's own tool for it is a JVM of its own, which takes seconds each time."""
    folder, program, classes = cache_folder() / "formatted", java(), f"{jars()}/*"
    with only_one(cache_folder()):
        if folder.exists():
            return folder
        with tempfile.TemporaryDirectory(dir=cache_folder(), ignore_cleanup_errors=True) as name:
            settings, data = Path(name) / "server.properties", Path(name) / "data"
            settings.write_text(properties(data, 0, 1))
            tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(settings)]
            done = subprocess.run(  # noqa: S603 - ours
                [program, *JVM, "-cp", classes, *tool],
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
                check=False,
            )
            if done.returncode:
                raise ConfigError(f"Kafka's data folder could not be made: {(done.stdout + done.stderr)[-500:]}")
            data.rename(folder)
    return folder


def archive() -> Path:
    """Classes as the JVM has them in memory: a start takes half the work with it. Where it cannot be made or used, Java does without."""
    file, empty = cache_folder() / "classes.jsa", formatted()
    with only_one(cache_folder()):
        if file.exists():
            return file
        with tempfile.TemporaryDirectory(dir=cache_folder(), ignore_cleanup_errors=True) as name:
            settings, half = Path(name) / "server.properties", Path(name) / file.name
            shutil.copytree(empty, Path(name) / "data")
            port, controller_port = free_ports(2)
            settings.write_text(properties(Path(name) / "data", port, controller_port))
            server = subprocess.Popen(  # noqa: S603 - ours
                server_command(settings, f"-XX:ArchiveClassesAtExit={half}"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            deadline = time.monotonic() + RUN_TIMEOUT_S
            while not listens(port) and server.poll() is None and time.monotonic() < deadline:
                time.sleep(LOOK_S)
            server.terminate()
            try:
                server.wait(RUN_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            if half.exists():
                half.rename(file)
    return file


def listens(port: int) -> bool:
    """Whether somebody accepts connections at this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
