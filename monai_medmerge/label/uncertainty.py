"""How unsure an answer is, and how much several networks disagree: which image to label next."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def probabilities(answer: Tensor) -> Tensor:
    """Class probabilities of a network's answer, channels first.

    Args:
        answer: (class, ...) logits or probabilities; one channel stands for yes against no. Values within [0, 1], and
            of sum one where there are several channels, are taken for probabilities.

    Returns:
        (class, ...) of sum one, with two classes for one channel.

    Example:
        >>> probabilities(torch.tensor([2.0, 2.0]))
        tensor([0.5000, 0.5000])
        >>> probabilities(torch.tensor([0.25]))
        tensor([0.7500, 0.2500])
    """
    answer = torch.as_tensor(answer).detach().float()
    within_unit = bool(answer.min() >= 0) and bool(answer.max() <= 1)
    if len(answer) == 1:
        yes = answer if within_unit else answer.sigmoid()
        return torch.cat([1 - yes, yes])
    is_share = within_unit and torch.allclose(answer.sum(0), torch.ones_like(answer[0]), atol=1e-4)
    return answer if is_share else answer.softmax(0)


def entropy(p: Tensor) -> float:
    r"""Mean entropy of class probabilities, as a share of the greatest possible.

    .. math:: -\frac{1}{\log C} \operatorname{mean}_x \sum_c p_c(x) \log p_c(x)

    Args:
        p: (class, ...) probabilities.

    Example:
        >>> round(entropy(torch.full((4, 2, 2), 0.25)), 6)
        1.0
        >>> entropy(torch.tensor([1.0, 0.0]))
        0.0
    """
    return torch.special.entr(p).sum(0).mean().item() / math.log(len(p))


def disagreement(members: Sequence[Tensor]) -> float:
    r"""Jensen-Shannon divergence of several networks' probabilities, as a share of the greatest possible.

    The entropy of the mean less the mean of the entropies: zero where all give one answer, however unsure, and one
    where each of M is sure of another (Lin, Divergence measures based on the Shannon entropy, 1991).

    Args:
        members: two or more (class, ...) probabilities.

    Example:
        >>> round(disagreement([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]), 6)
        1.0
        >>> disagreement([torch.tensor([0.5, 0.5])] * 3)
        0.0
    """
    classes = len(members[0])
    of_mean = entropy(torch.stack(list(members)).mean(0))
    mean_of = sum(entropy(member) for member in members) / len(members)
    share = (of_mean - mean_of) * math.log(classes) / math.log(min(classes, len(members)))
    return max(0.0, share)
