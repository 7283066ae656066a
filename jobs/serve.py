"""Serve trained models over HTTP: python jobs/serve.py --help"""

import sys

from imagegen_dist.cli.serve import main

if __name__ == "__main__":
    sys.exit(main())
