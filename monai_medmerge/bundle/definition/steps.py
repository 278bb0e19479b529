"""Preprocessing as plain data: as it was trained with, for images alone, and so that it can be undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_medmerge.bundle.definition.networks import Config, plain

IMAGE, LABEL = "image", "label"
PER_KEY = ("mode", "padding_mode", "dtype", "align_corners", "anti_aliasing", "anti_aliasing_sigma", "track_meta")
"""Arguments that MONAI's transforms take one of for each key."""
PATH_SAFE = "monai_medmerge.label.texts_aside.PathSafe"
COMPOSE = ("Compose", "monai.transforms.Compose")
TYPES = ("torch.", "np.", "numpy.")


def plain_steps(steps: Any, where: str = "preprocessing") -> list[Config]:
    """Steps of a configuration as plain data: a `Compose` opened, the names of number types without an expression.

    Args:
        steps: a list of `_target_` entries, or a `Compose` of one.
        where: for errors.

    Raises:
        SettingError: a step holds an expression, or something that is no plain data.

    Example:
        >>> plain_steps([{"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"}])
        [{'_target_': 'EnsureTyped', 'keys': 'image', 'dtype': 'float32'}]
    """
    if isinstance(steps, Mapping) and steps.get("_target_") in COMPOSE:
        return plain_steps(steps.get("transforms", ()), where)
    found = []
    for number, step in enumerate(steps):
        if isinstance(step, Mapping) and isinstance(dtype := step.get("dtype"), str) and dtype.startswith("$"):
            name = dtype[1:].strip()
            if name.startswith(TYPES):
                step = {**step, "dtype": name.rpartition(".")[2]}
        found.append(plain(step, f"{where}::{number}"))
    return found


def for_keys(steps: Sequence[Config], *keys: str) -> list[Config]:
    """The steps of some entries alone.

    Args:
        steps: plain data.
        keys: such as `image`. Steps of none of them are left out.

    Example:
        >>> for_keys([{"_target_": "Spacingd", "keys": ["image", "label"], "mode": ["bilinear", "nearest"]}], "image")
        [{'_target_': 'Spacingd', 'keys': 'image', 'mode': 'bilinear'}]
    """
    chosen = []
    for step in steps:
        if step.get("_target_") == PATH_SAFE:
            inner = for_keys([step["transform"]], *keys)
            chosen += [{**step, "transform": inner[0]}] if inner else []
            continue
        named = step.get("keys")
        if named is None:
            chosen.append(dict(step))
            continue
        listed = [named] if isinstance(named, str) else list(named)
        kept = [number for number, key in enumerate(listed) if key in keys]
        if not kept:
            continue
        step = dict(step)
        for argument in PER_KEY:
            if isinstance(step.get(argument), list) and len(step[argument]) == len(listed):
                step[argument] = _one_or_all([step[argument][number] for number in kept])
        step["keys"] = _one_or_all([listed[number] for number in kept])
        chosen.append(step)
    return chosen


def invertible(steps: Sequence[Config]) -> list[Config]:
    """The same steps, of which a map of answers can be brought back to the image's grid, in MONAI Label as well.

    Args:
        steps: for images alone.

    Example:
        >>> invertible([{"_target_": "EnsureTyped", "keys": "image", "track_meta": False}])
        [{'_target_': 'EnsureTyped', 'keys': 'image', 'track_meta': True}]
    """
    changed = []
    for step in steps:
        if "track_meta" in step:
            step = {**step, "track_meta": True}
        changed.append({"_target_": PATH_SAFE, "transform": step} if _name(step) == "Spacingd" else dict(step))
    return changed


def same_steps(one: Sequence[Config], other: Sequence[Config]) -> bool:
    """Whether two lists prepare images in the same way, whatever they do to labels and to what can be undone.

    Args:
        one: plain data.
        other: likewise.
    """
    first, second = ([_essence(step) for step in for_keys(steps, IMAGE)] for steps in (one, other))
    return first == second


def same_network(one: Config, other: Config) -> bool:
    """Whether two configurations make the same network: same class, whatever module it is named by, same arguments.

    Example:
        >>> same_network({"_target_": "UNet", "a": [1]}, {"_target_": "monai.networks.nets.UNet", "a": [1]})
        True
    """
    return {**one, "_target_": _name(one)} == {**other, "_target_": _name(other)}


def _essence(step: Config) -> Config:
    if step.get("_target_") == PATH_SAFE:
        return _essence(step["transform"])
    named = step.get("keys")
    keys = {} if named is None else {"keys": [named] if isinstance(named, str) else list(named)}
    return {**{k: v for k, v in step.items() if k != "track_meta"}, **keys, "_target_": _name(step)}


def _name(config: Config) -> str:
    return str(config.get("_target_", "")).rpartition(".")[2]


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
