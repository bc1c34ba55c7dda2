"""`python -m lightning_sal` is the `lightning` command."""

import sys

from lightning_sal.cli import main

if __name__ == "__main__":
    sys.exit(main())
