"""Two files of weights to a comparison on one data set: each network as its own definition tells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.data import DataLoader, Dataset
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose

from monai_medmerge.bundle.definition.asking import read_definition
from monai_medmerge.bundle.definition.document import Definition
from monai_medmerge.bundle.definition.steps import same_steps
from monai_medmerge.data.site import load_cases, load_volume_cases
from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation import Comparison, Naming, Resampling, compare, predict
from monai_medmerge.evaluation.bootstrap import SAMPLES
from monai_medmerge.evaluation.comparison.cases import age_groups
from monai_medmerge.evaluation.comparison.labels import compare_labels
from monai_medmerge.files import shown
from monai_medmerge.sources.filling import load_weights

BATCH = 64


def compare_weights(
    reference: str | os.PathLike[str],
    candidate: str | os.PathLike[str],
    data: str | os.PathLike[str],
    section: str = "test",
    *,
    subgroups: Sequence[str] = (),
    patient: str | None = None,
    naming: Naming | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    device: str = "cpu",
) -> Comparison:
    """Compare two networks on a data set; they may be of different classes, such as a DenseNet and a ViT.

    Args:
        reference: weights with their definition beside them.
        candidate: likewise, of the same task, classes and preprocessing.
        data: folder with a `dataset.json`.
        section: of the `dataset.json`.
        subgroups: entries of the images in the `dataset.json` that divide the cases.
        patient: entry that says which patient a case is of; shown nowhere.
        naming: what cases are called.
        samples: bootstrap resamples.
        seed: of resamples and noise.
        device: such as `cpu` or `cuda`.

    Raises:
        SettingError: there is no definition, or the two have other tasks, classes or preprocessing. Compare tables of
            predictions then.
        DatasetError: the data set does not fit the networks.
    """
    definitions = [read_definition(path) for path in (reference, candidate)]
    networks = [definition.network().to(device) for definition in definitions]
    _check(definitions, shown(Path(candidate).name))
    for network, path in zip(networks, (reference, candidate), strict=True):
        load_weights(network, Path(path))
    definition = definitions[0]
    names, volumes = definition.names(data), definition.task == "segmentation"
    columns = [*subgroups, *([patient] if patient else [])]
    if volumes:
        cases: list[dict[str, Any]] = [*load_volume_cases(data, section, columns)]
    else:
        cases = load_cases(data, section, len(names), columns, None, definition.task)
    steps = Compose(definition.transforms(*(("image", "label") if volumes else ("image",))))
    loader = DataLoader(Dataset(cases, steps), batch_size=1 if volumes else BATCH, shuffle=False, num_workers=0)
    if definition.task == "multilabel":
        found = [predict(network, loader, sigmoid=True) for network in networks]
        groups = [case[patient] for case in cases] if patient else None
        numbers = (naming or Naming(key="file")).names({"file": [case["file"] for case in cases]}, len(cases), 0)
        both = [probabilities.double().numpy() for probabilities, _ in found]
        drawn = Resampling(groups, samples=samples, seed=seed)
        divided = {name: age_groups(name, [case[name] for case in cases]) for name in subgroups}
        return compare_labels(both[0], both[1], found[0][1].numpy(), names, divided, numbers, drawn)
    inferer = SlidingWindowInferer(definition.window(), 4, 0.25, "gaussian") if volumes else None
    return compare(
        networks[0], networks[1], loader, names, subgroups=subgroups, patient=patient,
        naming=naming or Naming(key=None if volumes else "file"), inferer=inferer, samples=samples,
        seed=seed,
    )  # fmt: skip


def _check(definitions: Sequence[Definition], where: str) -> None:
    first, second = definitions
    for what, expected, found in (
        ("task", first.task, second.task),
        ("class_names", ", ".join(first.class_names), ", ".join(second.class_names)),
    ):
        if expected != found:
            raise SettingError(expected, found, f"{where}, {what}")
    if not same_steps(first.preprocessing, second.preprocessing):
        expected = "the preprocessing of the first network; or two tables of predictions"
        raise SettingError(expected, "another", f"{where}, preprocessing")
