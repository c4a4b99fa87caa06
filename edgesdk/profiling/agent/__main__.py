"""The agent as a program: ``python -m edgesdk.profiling.agent OUT -o measurement.json``."""

import sys

from .program import main

sys.exit(main())
