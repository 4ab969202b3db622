"""`python -m fastinfo` is the command `fastinfo`."""

import sys

from fastinfo.cli import main

sys.exit(main())
