"""Lets `python -m testcluster` run the command line."""

import sys

from testcluster.cli import main

sys.exit(main())
