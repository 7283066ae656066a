"""Search an experiment's values: python jobs/sweep.py --help"""

import sys

from imagegen_dist.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main())
