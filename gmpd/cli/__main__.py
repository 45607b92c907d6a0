"""``python -m gmpd.cli``: the command line where the `gmpd` script is not on the path."""

import sys

from gmpd.cli import main

sys.exit(main())
