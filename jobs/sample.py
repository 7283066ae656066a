"""Sample from a trained model: python jobs/sample.py --help"""

import sys

from imagegen_dist.cli.sample import main

if __name__ == "__main__":
    sys.exit(main())
