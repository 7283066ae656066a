"""A pass that does not fit into a device's memory in the middle of a run."""

import torch


class PassTooLarge(RuntimeError):
    """A pass did not fit while this rank averaged gradients with others: one line that says so.

    Some of the averages have been computed and the others never will be, so that all ranks have to begin again.
    before_update: True if no network has been updated since the last step.
    """

    def __init__(self, line: str, before_update: bool = False) -> None:
        super().__init__(line, before_update)
        self.before_update = before_update

    def __str__(self) -> str:
        return str(self.args[0])


def half_of(microbatches: int) -> int:
    """Microbatches of the next smaller pass."""
    return -(-microbatches // 2)


def give_back(device: torch.device) -> None:
    """Give back the memory of a GPU that no tensor uses, so that blocks of other sizes can be allocated."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
