"""Training and export of the small networks of `vit_net` and `pasted_torch`. torch is needed only in these three."""

# torch is no dependency: where it is not installed, its types are unknown.
# mypy: disable-error-code="import-not-found, no-any-return"

import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Array = NDArray[Any]
SIZE = 64  # pictures a step


def fit(
    net: nn.Module, batch: Callable[[], tuple[Tensor, Tensor]], held: tuple[Array, Array], steps: int
) -> None:
    """AdamW over one cosine, on what `batch` returns; prints the accuracy on held-out images and labels."""
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    began = time.perf_counter()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
        x, labels = batch()
        loss = functional.cross_entropy(net(x), labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 200 == 0:
            seconds = time.perf_counter() - began
            print(f"step {step + 1}: held out {accuracy(net, *held):.3f}, {seconds:.0f} s", flush=True)
    net.eval()


def accuracy(net: nn.Module, images: Array, labels: Array) -> float:
    """The share of the pictures whose class has the highest score; the network is left as it was."""
    training = net.training
    net.eval()
    with torch.no_grad():
        top = [net(torch.from_numpy(images[i : i + SIZE])).argmax(1) for i in range(0, len(images), SIZE)]
    net.train(training)
    return float((torch.cat(top).numpy() == labels).mean())


def exported(net: nn.Module, side: int) -> bytes:
    """The network as ONNX, by the exporter that most files come from; any batch size."""
    file = io.BytesIO()
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"]}
    axes = {"image": {0: "n"}, "scores": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, 3, side, side),),
            file,
            dynamo=False,
            dynamic_axes=axes,
            opset_version=17,
            **names,
        )
    return file.getvalue()
