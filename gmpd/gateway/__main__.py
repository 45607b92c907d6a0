"""``python -m gmpd.gateway``: the process that the daemon starts."""

import sys

from gmpd.gateway.server import main

if __name__ == "__main__":
    sys.exit(main())
