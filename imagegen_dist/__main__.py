"""`python -m imagegen_dist`: the command `imagegen`."""

import sys

from imagegen_dist.cli.imagegen import main

if __name__ == "__main__":
    sys.exit(main())
