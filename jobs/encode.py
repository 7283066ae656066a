"""Make a dataset of latents: python jobs/encode.py --help"""

import sys

from imagegen_dist.cli.encode import main

if __name__ == "__main__":
    sys.exit(main())
