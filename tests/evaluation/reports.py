"""A network, its images and a parser of pages: what tests of the report share."""

from __future__ import annotations

import html.parser
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.networks.nets import ResNet
from torch import nn

PATIENT = "MUSTERMANN^ERIKA"
EVIL = "<script>alert(1)</script>|`*x*`"
CLASSES = ["malignant", f"benign {EVIL}"]


def build() -> nn.Module:
    return ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 16], 2, 1, num_classes=2)


def batches(count: int = 48) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(count, 1, 32, 32, generator=generator), torch.arange(count) % 2
    found = []
    for n in range(0, count, 16):
        files = [f"/ward/{PATIENT}/{PATIENT}_{k}.dcm" for k in range(n, n + 16)]
        part = MetaTensor(images[n : n + 16], meta={"filename_or_obj": files, "PatientName": PATIENT})
        facts = {"site": ["north", "south"] * 8, "patient": [f"{PATIENT} {k // 2}" for k in range(n, n + 16)]}
        found.append({"image": part, "label": labels[n : n + 16], "file": files, **facts})
    return found


class Page(html.parser.HTMLParser):
    """Collects tags, and complains of what is not closed."""

    VOID = ("meta", "link", "img", "source", "br", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    return page
