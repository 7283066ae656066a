"""Export a trained model: python jobs/export.py --help"""

import sys

from imagegen_dist.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
