"""Search an experiment's values: python jobs/sweep.py --help"""

import sys

from imagegen_dist.launch.sweep.command import main

if __name__ == "__main__":
    sys.exit(main())
