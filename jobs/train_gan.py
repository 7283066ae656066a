"""Train a GAN: python jobs/train_gan.py --help"""

import sys

from imagegen_dist.cli.train import main_gan

if __name__ == "__main__":
    sys.exit(main_gan())
