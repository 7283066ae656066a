"""The data path of one checkout, a slice at a time: `PYTHONPATH=CHECKOUT python -m peers.paired URL CACHE`.

Each line on standard input is a number of batches to read; the answer is the CPU seconds that they took. Two such
processes of two checkouts that take turns see the same state of the machine, so that their ratio is steadier than
either figure.
"""

import sys
import time
from collections.abc import Iterator


def batches(url: str, cache: str) -> Iterator[int]:
    """Steps of a stream without end. A cache of three fifths of the dataset keeps fetching where it is remote."""
    from peers.shard_stream import open_stream

    # No decoded samples are kept: every batch is read and decoded anew.
    _, items = open_stream(url, cache, 1_000_000, lanes=2, cached_share=3 / 5, workers=0, decoded_bytes=1 << 18)
    for item in items:
        yield item.sample[0, 0].shape[0]


def main() -> None:
    endless = batches(*sys.argv[1:3])
    for line in sys.stdin:
        began = time.process_time()
        for _ in range(int(line)):
            next(endless)
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
