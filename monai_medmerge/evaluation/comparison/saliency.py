"""Where a classifier looks: MONAI's Grad-CAM at its last layer that still has a place in the image."""

from __future__ import annotations

import numpy as np
import torch
from monai.visualize import GradCAM
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from monai_medmerge.inspection import copy_network, device_of


class Saliency:
    """Grad-CAM of one network; the network itself is left alone.

    Selvaraju et al., "Grad-CAM", arXiv:1610.02391, as MONAI has it.

    Args:
        network: gives scores (batch, class).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> Saliency(network)(torch.rand(1, 1, 16, 16), 1).shape
        (16, 16)
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy_network(network).eval()
        for module in self.network.modules():
            # A hook on a layer whose output is overwritten in place would see nothing.
            if isinstance(getattr(module, "inplace", None), bool):
                vars(module)["inplace"] = False
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        self._layer: str | None = None

    def __call__(self, image: Tensor, number: int) -> np.ndarray | None:
        """From 0 to 1, how much each place of the image speaks for a class; None where no layer has a place.

        Args:
            image: (1, channel, *space).
            number: of the class.
        """
        device = device_of(self.network)
        image = image.as_subclass(Tensor).float().to(device)
        layer = self._layer or _last_layer_with_space(self.network, image)
        if layer is None:
            return None
        self._layer = layer
        with torch.enable_grad():
            found = GradCAM(self.network, layer)(image.requires_grad_(True), class_idx=number)
        values = np.asarray(torch.as_tensor(found).detach().cpu().float())[0, 0]
        # MONAI gives where to look as 0, and NaN where nothing differs.
        values = np.nan_to_num(values)
        spread = float(np.ptp(values))
        return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


def _last_layer_with_space(network: nn.Module, image: Tensor) -> str | None:
    """The last convolution called whose output is more than one place in every direction."""
    called: list[str] = []
    hooks = [
        module.register_forward_hook(
            lambda _, __, output, name=name: called.append(name) if min(output.shape[2:], default=0) > 1 else None
        )
        for name, module in network.named_modules()
        if isinstance(module, _ConvNd)
    ]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1] if called else None
