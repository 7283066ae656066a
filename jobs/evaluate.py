"""Measure a trained model: python jobs/evaluate.py --help"""

import sys

from imagegen_dist.cli.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main())
