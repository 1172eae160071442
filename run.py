#!/usr/bin/env python3
"""Magpie's command line: `run.py` serves, `run.py --help` lists the rest."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older one may well be what `python3` is
    sys.stderr.write("magpie: Python 3.11 or newer is needed, this is %d.%d.\n" % sys.version_info[:2])  # noqa: UP031
    sys.exit(2)

from app.cli.main import main

if __name__ == "__main__":
    main()
