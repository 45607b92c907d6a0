"""``python -m gmpd.daemon``: the private daemon that a client starts for itself."""

import sys

from gmpd.daemon.serve import main

if __name__ == "__main__":
    sys.exit(main())
