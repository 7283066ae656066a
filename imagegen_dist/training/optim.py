"""Optimizers with scheduled settings, which skip a step with non-finite gradients without a host sync."""

from collections.abc import Collection, Container, Iterable

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.interface import AdamConfig


class ScheduledAdam:
    """Adam over one module's parameters, with learning rate and beta2 as functions of images seen.

    frozen: parameters that keep their values.
    """

    def __init__(self, module: nn.Module, config: AdamConfig, frozen: Collection[nn.Parameter] = frozenset()) -> None:
        self.config = config
        trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter not in frozen]
        self.names, parameters = zip(*trained, strict=True)
        self.parameters: tuple[nn.Parameter, ...] = parameters
        self._adam = torch.optim.Adam(self.parameters, eps=config.epsilon, fused=True)

    def clear_gradients(self) -> None:
        """Discard the gradients of the previous step."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, images_seen: int, bad: Tensor) -> None:
        """Update the parameters, or leave all state unchanged if `bad` (float32 scalar on the device) is 1."""
        for group in self._adam.param_groups:
            group["lr"] = self.config.lr(images_seen)
            group["betas"] = (self.config.beta1, self.config.beta2(images_seen))
        self._adam.found_inf = bad  # type: ignore[attr-defined]  # the fused kernels read it, as for GradScaler
        self._adam.step()

    def non_finite(self) -> Tensor:
        """float32 scalar on the device: 1 if any gradient is not finite, else 0."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norms = torch.stack(list(torch._foreach_norm(gradients)))
        return (~norms.isfinite().all()).float()

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state by parameter name and kind, e.g. "fc.weight/exp_avg"."""
        state = self._adam.state
        named = zip(self.names, self.parameters, strict=True)
        return {f"{name}/{key}": value for name, parameter in named for key, value in state[parameter].items()}

    def begin_(self) -> None:
        """Allocate zero-initialised optimizer state, into which another optimizer's state can be copied."""
        for parameter in self.parameters:
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self._adam.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                **moments,
            }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load what `tensors` returned. Raises KeyError if a parameter's state is missing."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if not tensors:
                self._adam.state[parameter] = {}
                continue
            # The fused kernels pair values by their place in memory: the moments are laid out as the parameter.
            moments = {
                key: torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"{name}/{key}"])
                for key in ("exp_avg", "exp_avg_sq")
            }
            step = tensors[f"{name}/step"].to(parameter.device, copy=True)
            self._adam.state[parameter] = {"step": step, **moments}


def nan_if_nonfinite(loss: Tensor) -> Tensor:
    """The loss itself, or NaN if it is not finite.

    A non-finite loss can have finite gradients on this rank. As NaN they propagate to all ranks through the all-reduced
    mean, so that all ranks skip the step without a further collective.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


def set_requires_grad(parameters: Iterable[nn.Parameter], trained: Container[nn.Parameter]) -> None:
    """Enable gradients only for `trained`."""
    for parameter in parameters:
        parameter.requires_grad_(parameter in trained)
