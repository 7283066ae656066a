"""torch-fidelity's and prdc's figures of the same features, `python -m peers.fidelity JSON`."""

import contextlib
import io
import json
import sys
from typing import Any


def run(began: float, tensors: str, subset_size: int, k: int, weights: str) -> dict[str, Any]:
    """Figures of generated and real features, and features of pictures by Inception with the weights of a file.

    tensors: safetensors file of "generated" [N, F], "real" [M, F], "logits" [N, K] and "pictures" uint8 [B, 3, H, W].
    """
    import torch
    from prdc import compute_prdc
    from safetensors.torch import load_file, save_file
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    torch.set_num_threads(1)
    given = load_file(tensors)
    x, y = given["generated"], given["real"]
    statistics = fid_features_to_statistics(x.double()), fid_features_to_statistics(y.double())
    found = fid_statistics_to_metric(*statistics, verbose=False)
    found |= kid_features_to_metric(x.double(), y.double(), kid_subset_size=subset_size, kid_subsets=1, verbose=False)
    found |= prc_features_to_metric(x.double(), y.double(), prc_neighborhood=k, save_cpu_ram=True, verbose=False)
    found |= isc_features_to_metric(given["logits"], shuffle=False)
    with contextlib.redirect_stdout(io.StringIO()):
        counted = compute_prdc(y.double().numpy(), x.double().numpy(), 5)
    found |= {name: float(counted[name]) for name in ("density", "coverage")}

    # It reads pickles alone, and wants the counters of its batch normalisations, which it does not use.
    named = load_file(weights)
    counters = [name.replace(".bn.weight", ".bn.num_batches_tracked") for name in named if ".bn.weight" in name]
    torch.save(named | {name: torch.tensor(0) for name in counters}, f"{weights}.pth")
    network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], f"{weights}.pth")
    features, logits = network(given["pictures"])
    save_file({"features": features, "logits": logits}, f"{tensors}.peer")
    return found


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
