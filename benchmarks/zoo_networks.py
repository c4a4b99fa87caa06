"""Networks that no library brings: what microcontrollers and sensors run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn


def _unit(into: int, out: int, stride: int = 1, groups: int = 1, size: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(into, out, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


class DsCnn(nn.Module):
    """Zhang et al. 2017, "Hello Edge": keyword spotting by depthwise separable convolutions."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(_unit(16, 16, groups=16), _unit(16, 16, size=1)) for _ in range(2)]
        self.features = nn.Sequential(_unit(1, 16, 2), *blocks)
        self.head = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class ResNet8(nn.Module):
    """MLPerf Tiny's image classifier, with a third of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 8)
        self.first = nn.Sequential(_unit(8, 8), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.second = nn.Sequential(
            _unit(8, 16, 2), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        )
        self.shortcut = nn.Conv2d(8, 16, 1, 2)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.first(x))
        x = torch.relu(self.shortcut(x) + self.second(x))
        return self.head(x.mean((2, 3)))


class Autoencoder(nn.Sequential):
    """MLPerf Tiny's anomaly detector, with a quarter of its width."""

    def __init__(self) -> None:
        widths = (64, 32, 32, 8, 32, 32)
        layers: list[nn.Module] = []
        for into, out in pairwise(widths):
            layers += [nn.Linear(into, out), nn.BatchNorm1d(out), nn.ReLU()]
        super().__init__(*layers, nn.Linear(32, 64))


class Recurrent(nn.Module):
    """A recurrent layer over a sequence and a classifier on its last step."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.cells = kind(8, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


class Tcn(nn.Module):
    """Bai et al. 2018: dilated causal convolutions with residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 16, 1)
        self.convs = nn.ModuleList(nn.Conv1d(16, 16, 3, dilation=2**i) for i in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for conv in self.convs:
            x = x + torch.relu(conv(nn.functional.pad(x, (2 * conv.dilation[0], 0))))
        return self.head(x[:, :, -1])


class UNet(nn.Module):
    """Ronneberger et al. 2015, two levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = _unit(3, 8), _unit(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.join = _unit(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.down(x)
        deep = self.bottom(nn.functional.max_pool2d(kept, 2, 2))
        return self.head(self.join(torch.cat((kept, self.up(deep)), 1)))


class Cnn1d(nn.Module):
    """Convolutions over a sensor's samples."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(3, 16, 5, 2, 2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2, 2),
            nn.Conv1d(16, 32, 3, 1, 1), nn.BatchNorm1d(32), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(2))


OWN: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ds_cnn": (DsCnn, (1, 1, 48, 10)),
    "resnet8": (ResNet8, (1, 3, 32, 32)),
    "autoencoder": (Autoencoder, (1, 64)),
    "lstm": (lambda: Recurrent(nn.LSTM), (1, 12, 8)),
    "gru": (lambda: Recurrent(nn.GRU), (1, 12, 8)),
    "tcn": (Tcn, (1, 4, 32)),
    "unet": (UNet, (1, 3, 32, 32)),
    "cnn_1d": (Cnn1d, (1, 3, 64)),
}
"""Builder and shape of the input, by name."""
