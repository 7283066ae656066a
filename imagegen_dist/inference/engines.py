"""Inference engines: PyTorch, eager or compiled, or ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from imagegen_dist.inference.autoencoder import AutoencoderModel
    from imagegen_dist.inference.generator import GeneratorModel

EngineName = Literal["eager", "compiled", "onnxruntime"]
ENGINES: tuple[str, ...] = get_args(EngineName)


def use_engine_(model: GeneratorModel | AutoencoderModel, engine: EngineName, threads: int = 0) -> None:
    """Make a model generate samples by this engine. Batches have a fixed size, for which each engine is prepared once.

    threads: of ONNX Runtime; 0 for as many as PyTorch has. Raises ExportError if ONNX is not installed, ValueError
    if ONNX Runtime is requested on a device other than the CPU.
    """
    import torch  # a server of ONNX programs does without it

    from imagegen_dist.inference.convert import onnx_function, to_onnx
    from imagegen_dist.inference.programs import programs, weighted

    match engine:
        case "eager":
            model.compute = None
        case "compiled":
            model.compute = torch.compile(model.forward, dynamic=False)
        case "onnxruntime":
            if model.device.type != "cpu":
                raise ValueError(f"engine onnxruntime needs the CPU, and the model is on {model.device}")
            parts = programs(model)
            part = weighted(next(parts[name] for name in ("generator", "sampler", "decoder") if name in parts))
            function = onnx_function(to_onnx(part), part.inputs, threads)

            def compute(drawn: Tensor, label: Tensor | None = None) -> Tensor:
                if label is not None and not label.is_floating_point():
                    label = torch.nn.functional.one_hot(label.long(), model.classes).float()
                return function(drawn, label)

            model.compute = compute
