"""Which sources are worth merging for a target, which one to start from, and which say the same as another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from monai_medmerge.errors import DatasetError
from monai_medmerge.inspection import copy_network
from monai_medmerge.ranking.features import Features, extract
from monai_medmerge.ranking.transferability import cka, h_score, linear_probe, log_evidence
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.filling import load_into
from monai_medmerge.sources.matching import check_compatible
from monai_medmerge.sources.patterns import Patterns

UNTRAINED = "untrained"
# From this on, two sources' features are taken to say the same.
REDUNDANT = 0.995
# Fresh weights vary: a source must be this many standard deviations above the mean of that many untrained networks.
CONTROLS, MARGIN = 5, 2.0
SCORES = ("h_score", "log_evidence", "linear_probe")


@dataclass(frozen=True)
class Score:
    """What one source's features are worth on the target.

    Args:
        name: of the source; `untrained` for the control, the mean of networks with fresh weights.
        h_score: regularised H-score.
        log_evidence: LogME.
        linear_probe: macro F1 of a cross-validated linear probe; NaN where classes have too few cases.
        mean_rank: over the three scores, among the sources; 1 is best.
        useful: clearly better than untrained networks by most scores.
        redundant_with: a better source whose features are the same, or empty.
    """

    name: str
    h_score: float
    log_evidence: float
    linear_probe: float
    mean_rank: float
    useful: bool
    redundant_with: str = ""

    @property
    def verdict(self) -> str:
        """What follows, in words."""
        if self.redundant_with:
            return f"redundant: the same features as {self.redundant_with}"
        return "useful" if self.useful else "not clearly better than untrained"


@dataclass(frozen=True)
class Ranking:
    """Sources from best to worst for a target; `str()` is a table.

    Args:
        scores: of the sources, best first.
        untrained: of the control.
        names: the sources in the order they were given, which is that of `similarity`.
        similarity: linear CKA (source, source) of their features on the target.
        samples: rows of features that were compared: images, or voxels.
        images: how many images they are of.
    """

    scores: tuple[Score, ...]
    untrained: Score
    names: tuple[str, ...]
    similarity: tuple[tuple[float, ...], ...]
    samples: int
    images: int

    @property
    def anchor(self) -> str:
        """The source to start from: the best."""
        return self.scores[0].name

    @property
    def proposed(self) -> tuple[str, ...]:
        """The sources to merge, the anchor first; without those that are redundant or not clearly useful."""
        others = (score.name for score in self.scores[1:] if score.useful and not score.redundant_with)
        return (self.anchor, *others)

    def select(self, sources: Sequence[Source]) -> list[Source]:
        """The proposed ones of these sources, the anchor first.

        Args:
            sources: what was ranked.
        """
        by_name = {source.name: source for source in sources}
        return [by_name[name] for name in self.proposed]

    def as_dict(self) -> dict[str, Any]:
        """The ranking in plain types, for JSON."""
        rows = [{**asdict(score), "verdict": score.verdict} for score in self.scores]
        return {
            "anchor": self.anchor,
            "proposed": list(self.proposed),
            "scores": [_without_nan(row) for row in rows],
            "untrained": {name: _without_nan(asdict(self.untrained))[name] for name in SCORES},
            "names": list(self.names),
            "similarity": [[None if np.isnan(value) else value for value in row] for row in self.similarity],
            "samples": self.samples,
            "images": self.images,
        }

    def __str__(self) -> str:
        width = max(len(score.name) for score in (*self.scores, self.untrained))
        lines = [f"{'source':<{width}}  H-score   LogME  probe F1  mean rank"]
        for score in (*self.scores, self.untrained):
            numbers = f"{score.h_score:7.3f} {score.log_evidence:7.3f} {score.linear_probe:9.3f}"
            rank = "" if score is self.untrained else f" {score.mean_rank:10.2f}  {score.verdict}"
            lines.append(f"{score.name:<{width}}  {numbers}{rank}")
        lines += ["", f"start from: {self.anchor}", f"merge: {', '.join(self.proposed)}"]
        return "\n".join(lines)


def rank(
    network: nn.Module,
    sources: Sequence[Source],
    batches: Iterable[Any],
    layer: str | None = None,
    redundant: float = REDUNDANT,
    seed: int = 0,
    prepare: Callable[[nn.Module], nn.Module] | None = None,
    exclude: Patterns = (),
) -> Ranking:
    """Rank sources by what their features are worth on labelled target images; nothing is trained but linear probes.

    The order is that of the mean rank over regularised H-score, LogME and a cross-validated linear probe. The
    network is scored with fresh weights too, five times: a source that is not clearly better, by most scores and
    two standard deviations, is not proposed.

    Args:
        network: to be merged into; what a source lacks stays its own. Stays untouched.
        sources: one or more. A few hundred images tell them apart.
        batches: labelled target images, without augmentation: dictionaries with `image` and `label`, or pairs; gone
            through once. Labels are class numbers, or label maps for segmentation (see `extract`).
        layer: whose input is compared; the last linear or convolutional layer's if not given.
        redundant: CKA from which the worse of two sources is redundant.
        seed: of folds, voxels and fresh weights.
        prepare: applied to a copy of the network with each source's weights, and with fresh ones. For networks with
            batch-norm give ``lambda n: recalibrate(n, batches)``: statistics of a source's own images spoil its
            features of others, and the merge recalibrates as well.
        exclude: name patterns of tensors that stay the network's own, as in the merge.

    Raises:
        IncompatibleSourcesError: a source does not fit.
        DatasetError: there are no images, or not two classes.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> images, labels = torch.randn(40, 6), torch.arange(40) % 2
        >>> images[labels == 1, 0] += 4
        >>> build = lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> sources = [Source.from_network(build(), name) for name in ("a", "b")]
        >>> sources.append(Source("copy of a", sources[0].tensors))
        >>> ranking = rank(build(), sources, [(images, labels)])
        >>> [score.name for score in ranking.scores if score.redundant_with]
        ['copy of a']
    """
    check_compatible(network, sources, exclude)
    networks = [load_into(network, source, exclude) for source in sources]
    networks += [_untrained(network, seed + n) for n in range(CONTROLS)]
    features = extract([prepare(n) for n in networks] if prepare else networks, batches, layer, seed)
    if len(np.unique(features[0].labels)) < 2:
        raise DatasetError("at least two classes", f"only {np.unique(features[0].labels).tolist()}", "label")
    table = np.array([_scores(found, seed) for found in features])
    rows, controls = table[: len(sources)], table[len(sources) :]
    similarity = _similarity(features[: len(sources)])
    names = [source.name for source in sources]
    return Ranking(
        scores=_order(names, rows, controls, similarity, redundant),
        untrained=_score(UNTRAINED, controls.mean(0), float("nan")),
        names=tuple(names),
        similarity=tuple(tuple(row) for row in similarity.tolist()),
        samples=len(features[0].labels),
        images=len(np.unique(features[0].images)),
    )


def _untrained(network: nn.Module, seed: int) -> nn.Module:
    """A copy of the network with every layer as new."""
    copied = copy_network(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in copied.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return copied


def _scores(features: Features, seed: int) -> tuple[float, float, float]:
    values, labels = features.values, features.labels
    groups = features.images if features.voxels else None
    return h_score(values, labels), log_evidence(values, labels), linear_probe(values, labels, groups, seed=seed)


def _similarity(features: Sequence[Features]) -> np.ndarray:
    found = np.eye(len(features))
    for i in range(len(features)):
        for j in range(i):
            found[i, j] = found[j, i] = cka(features[i].values, features[j].values)
    return found


def _order(
    names: Sequence[str], rows: np.ndarray, controls: np.ndarray, similarity: np.ndarray, redundant: float
) -> tuple[Score, ...]:
    """Scores of the sources, best first."""
    # A rank is one more than the number of better sources, with half a place for each tie; NaN ranks equal.
    better = (rows[None] > rows[:, None]).sum(1) + ((rows[None] == rows[:, None]).sum(1) - 1) / 2
    ranks = (1 + np.where(np.isnan(rows), (len(rows) - 1) / 2, better)).mean(1)
    bar = controls.mean(0) + MARGIN * controls.std(0, ddof=1)
    useful = (rows > bar)[:, ~np.isnan(bar)].mean(1) > 0.5
    # The probe is nearest to what is wanted, and decides ties.
    order = sorted(range(len(names)), key=lambda n: (ranks[n], -np.nan_to_num(rows[n, 2]), n))
    kept: list[int] = []
    found = []
    for n in order:
        twin = next((other for other in kept if similarity[n, other] >= redundant), None)
        kept += [n] if twin is None else []
        twin_name = "" if twin is None else names[twin]
        found.append(_score(names[n], rows[n], float(ranks[n]), bool(useful[n]), twin_name))
    return tuple(found)


def _score(name: str, row: np.ndarray, mean_rank: float, useful: bool = False, redundant_with: str = "") -> Score:
    between, evidence, probe = row.tolist()
    return Score(name, between, evidence, probe, mean_rank, useful, redundant_with)


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
