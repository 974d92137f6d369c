"""`python -m fitune` is `fitune`."""

import sys

from fitune.cli import main

if __name__ == "__main__":
    sys.exit(main())
