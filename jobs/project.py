"""Find the latents of pictures, and edit them: python jobs/project.py --help"""

import sys

from imagegen_dist.cli.project import main

if __name__ == "__main__":
    sys.exit(main())
