"""`run.py` with settings that make it quick to fail, and what a refusal looks like."""

import os
import subprocess
import sys
from pathlib import Path

from app.settings import ROOT

DEADLINE_S = 30.0
SECRET = "geheim-" + "x" * 40
CLOSED = "127.0.0.1:1"  # nobody listens on the port of tcpmux


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    """Ours, quick to fail and away from other programs' ports."""
    own = {
        "IM_ENV": "dev",
        "IM_DATA_DIR": str(data_dir),
        "IM_HTTP__PORT": "0",
        "IM_METRICS__PORT": "0",
        "IM_EMBEDDED__POSTGRES_SHARED_BUFFERS_MB": "16",
        "IM_POSTGRES__STARTUP_WAIT_S": "0",
        "IM_REDIS__STARTUP_WAIT_S": "0",
        "IM_BROKER__STARTUP_WAIT_S": "0",
    }
    return {**os.environ, **own, **variables}


def run(data_dir: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "run.py", *arguments],
        cwd=ROOT,
        env=environment(data_dir, **variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence a command ended with."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    sentence = lines[-1]
    assert sentence.startswith("magpie: ")
    assert sentence.endswith(".")
    assert all(line[0] in "✓… " for line in lines[:-1]), done.stderr
    assert SECRET not in done.stdout + done.stderr
    return sentence
