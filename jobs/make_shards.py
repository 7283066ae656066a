"""Pack pictures into shards, or index shards that are there: python jobs/make_shards.py --help"""

import sys

from imagegen_dist.cli.data import main

if __name__ == "__main__":
    sys.exit(main())
