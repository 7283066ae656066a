"""Train a VAE: python jobs/train_vae.py --help"""

import sys

from imagegen_dist.cli.train import main_vae

if __name__ == "__main__":
    sys.exit(main_vae())
