"""The rate's decomposition, estimated from a minibatch: mutual information, total correlation, dimension-wise KL.

KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j)) on average over x
(arXiv:1802.04942, Eq. 2). q(z) is a mixture over the whole dataset; the estimators see a minibatch of it.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from imagegen_dist.objectives.latents import log_density, standard_normal_log_prob

Estimator = Literal["mws", "mss"]


class Decomposition(NamedTuple):
    """One-sample estimates in nats, [B] each; their sum is log q(z|x) - log p(z) exactly."""

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor


class Marginals(NamedTuple):
    """Estimates of log q(z) and of log prod_j q(z_j) at each sample's z, [B] each."""

    joint: Tensor
    product: Tensor


def decompose(z: Tensor, mean: Tensor, log_variance: Tensor, dataset_size: int, estimator: Estimator) -> Decomposition:
    """The three terms at each sample's z.

    z, mean, log_variance: [B, Z, *s], with z_i drawn from Gaussian i. dataset_size: number N of samples from which the
    minibatch was drawn. Errors as for `importance_weights`.
    """
    z, mean, log_variance = z.flatten(1), mean.flatten(1), log_variance.flatten(1)
    own = log_density(z, mean, log_variance).sum(1)
    joint, product = marginals(z, mean, log_variance, dataset_size, estimator)
    return Decomposition(own - joint, joint - product, product - standard_normal_log_prob(z))


def marginals(z: Tensor, mean: Tensor, log_variance: Tensor, dataset_size: int, estimator: Estimator) -> Marginals:
    """log of sum_m w_im q(z_i|x_m), over all latents jointly and over each latent. z, mean, log_variance: [B, Z]."""
    weights = importance_weights(len(z), dataset_size, estimator, z.device).to(z).log()
    densities = log_density(z.unsqueeze(1), mean.unsqueeze(0), log_variance.unsqueeze(0))  # [B, B, Z]
    joint = (weights + densities.sum(2)).logsumexp(1)
    product = (weights.unsqueeze(2) + densities).logsumexp(1).sum(1)
    return Marginals(joint, product)


def importance_weights(
    batch_size: int, dataset_size: int, estimator: Estimator, device: torch.device | str = "cpu"
) -> Tensor:
    """Weight of Gaussian m in the estimate of q(z_i), float64 [B, B], one row per i.

    mws  1 / (N B) each: minibatch-weighted sampling (arXiv:1802.04942, Sec. 3.1), a lower bound in expectation.
    mss  minibatch-stratified sampling (appendix C): 1 / N for i's own, (N - M) / (N M) for one of the M = B - 1
         others, 1 / M for the rest. Rows sum to 1, and the estimate of q(z_i) is unbiased.
    Raises ValueError if mss is given fewer than two samples, or more than the dataset has.
    """
    if estimator == "mws":
        each = 1 / (dataset_size * batch_size)
        return torch.full((batch_size, batch_size), each, dtype=torch.float64, device=device)
    others = batch_size - 1
    if not 0 < others < dataset_size:
        raise ValueError(
            f"mss cannot estimate from microbatches of {batch_size} of {dataset_size} samples: it needs 2 or more, and "
            "no more than the dataset has; set --training.microbatch-size, or --objective.decomposition to mws"
        )
    weights = torch.full((batch_size, batch_size), 1 / others, dtype=torch.float64, device=device)
    rows = torch.arange(batch_size, device=device)
    weights[rows, (rows + 1) % batch_size] = (dataset_size - others) / (dataset_size * others)
    weights[rows, rows] = 1 / dataset_size
    return weights
