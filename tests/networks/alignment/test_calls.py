"""The shape of a convolution is what torch computes, and what torch refuses has none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medmerge.networks.alignment.calls import argument_names, convolution_shape

CONVOLUTION = torch.ops.aten.convolution.default


@settings(max_examples=60, deadline=None)
@given(
    transposed=st.booleans(), groups=st.integers(1, 3), axes=st.integers(1, 3), kernel=st.integers(1, 3),
    stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2), extra=st.integers(0, 1),
)  # fmt: skip
def test_it_is_what_torch_computes(
    transposed: bool, groups: int, axes: int, kernel: int, stride: int, padding: int, dilation: int, extra: int
) -> None:
    lengths = [7, 6, 5][:axes]
    image, weight = torch.zeros(2, 2 * groups, *lengths), torch.zeros(2 * groups, 2, *[kernel] * axes)
    # A transposed convolution may be longer by less than its stride.
    extra = extra if transposed and extra < stride else 0
    arguments = (image, weight, None, [stride], [padding], [dilation] * axes, transposed, [extra], groups)
    bound = dict(zip(argument_names(CONVOLUTION), arguments, strict=True))
    try:
        expected = list(CONVOLUTION(*arguments).shape)
    except RuntimeError:
        expected = None
    assert convolution_shape(bound) == expected


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 8, 8).double(), torch.zeros(1, 3, 2, 2), torch.zeros(3, 8, 8)]
)
def test_what_torch_refuses_has_none(image: torch.Tensor) -> None:
    arguments = (image, torch.zeros(4, 3, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    assert convolution_shape(dict(zip(argument_names(CONVOLUTION), arguments, strict=True))) is None
