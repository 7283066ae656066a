"""Show, and remove with --remove, what killed jobs left on this machine. python jobs/clean.py --help"""

import sys

from imagegen_dist.cli.clean import main

if __name__ == "__main__":
    sys.exit(main())
