"""Codes of segmented structures: looked up in, and checked against, the tables of the DICOM standard (PS3.16)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom.sr.codedict import Collection

from monai_medmerge.errors import SettingError
from monai_medmerge.transforms.dicom.results.segmentation import SegmentTable

CATEGORY, TYPE = "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"
# Beside weights: what travels with them; beside images: what they were labelled as.
DEFINITION, RESULTS, DATALIST = "model.json", "metrics.json", "dataset.json"
# Context groups of PS3.16 that hold what is found in a body and is not its anatomy (lesions; fluids).
_CATEGORIES, _LESIONS, _FLUIDS = "CID7150", ("CID7159", "CID7194"), "CID7197"
# Words that mean one thing in a brain or an eye and another in the table.
_AMBIGUOUS = {"ventricle", "pelvis", "background", "normal", "disc", "cup", "other", "line", "interface"}
_SPELLINGS = {
    "tumour": "neoplasm",
    "tumor": "neoplasm",
    "gall bladder": "gallbladder",
    "oesophagus": "esophagus",
    "oedema": "edema",
}
_SPELLINGS |= {"urinary bladder": "bladder", "haemorrhage": "hemorrhage", "grey matter": "gray matter"}
_SPELLINGS |= {"thyroid gland": "thyroid", "postcava": "inferior vena cava", "csf": "cerebrospinal fluid"}
_SPELLINGS |= {"oesophagus": "esophagus"}
_SIDE = re.compile(r"\b(left|right|l|r)\b")


def offer_code(name: str) -> dict[str, Any] | None:
    """The codes that the standard has for a structure of that very name, or None: an offer, to be looked at.

    Sides are left out of the code and stay in the label. Words of several meanings, such as `ventricle`, get no offer.

    Args:
        name: of a class, such as `left kidney`, `Kidney_L` or `tumour`.

    Returns:
        Category and type as dcmqi's JSON has them.

    Example:
        >>> found = offer_code("left_kidney")
        >>> found[TYPE]["CodeValue"], found[TYPE]["CodeMeaning"], found[CATEGORY]["CodeMeaning"]
        ('64033007', 'Kidney', 'Anatomical Structure')
        >>> offer_code("front") is None
        True
    """
    plain = " ".join(re.sub(r"[^a-z]+", " ", name.lower()).split())
    for words in (plain, " ".join(_SIDE.sub(" ", plain).split())):
        code = None if words in _AMBIGUOUS else _by_meaning().get(_SPELLINGS.get(words, words))
        if code is not None:
            return {CATEGORY: _as_json(_concepts(_CATEGORIES)[_category(code)]), TYPE: _as_json(code)}
    return None


def check_segments(table: SegmentTable, class_names: Sequence[str], where: str) -> SegmentTable:
    """A table whose labels are those classes, in their order, with codes that mean what the standard says they mean.

    Args:
        table: one segment for each class but the background.
        class_names: the background first.
        where: what the table is from, for errors.

    Returns:
        The table.

    Raises:
        SettingError: a class has no segment, or a segment has a code of another meaning, or one that no table holds
            and whose scheme is not private (`99...`).
    """
    wanted = list(class_names[1:])
    found = {int(item["labelID"]): item for item in table.segments}
    for number, name in enumerate(wanted, 1):
        if name not in _names(found.get(number, {})):
            named = " or ".join(sorted(_names(found.get(number, {})))) or "none"
            raise SettingError(f"codes of class {name!r}", f"those of {named}", f"{where}, labelID {number}")
    if strange := sorted(set(found) - set(range(1, len(wanted) + 1))):
        raise SettingError(f"codes of {len(wanted)} classes", f"more, labelID {strange[0]}", where)
    for number, item in found.items():
        _check_code(item[CATEGORY], _concepts(_CATEGORIES).values(), f"{where}, labelID {number}, category")
        _check_code(item[TYPE], None, f"{where}, labelID {number}, type")
    return table


def segment_table(codes: Mapping[str, Any], class_names: Sequence[str], where: str) -> SegmentTable:
    """The table of classes and their codes.

    Args:
        codes: class name to `SegmentedPropertyCategoryCodeSequence` and `SegmentedPropertyTypeCodeSequence`, each with
            "CodeValue", "CodingSchemeDesignator" and "CodeMeaning"; or the content of dcmqi's JSON.
        class_names: the background first.
        where: what the codes are from, for errors.

    Raises:
        SettingError: as `check_segments`.

    Example:
        >>> table = segment_table({"liver": offer_code("liver")}, ["background", "liver"], "dataset.json, codes")
        >>> table.segments[0]["labelID"], table.segments[0]["SegmentLabel"]
        (1, 'liver')
    """
    if "segmentAttributes" in codes:
        return check_segments(SegmentTable.from_content(codes, where), class_names, where)
    if absent := [name for name in class_names[1:] if not isinstance(codes.get(name), Mapping)]:
        raise SettingError(f"a code of class {absent[0]!r}", "none", where)
    items = []
    for number, name in enumerate(class_names[1:], 1):
        for keyword in (CATEGORY, TYPE):
            code = codes[name].get(keyword)
            if not isinstance(code, Mapping) or not {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"} <= set(code):
                raise SettingError(f"a {keyword} of class {name!r}", "none", where)
        items.append({"labelID": number, "SegmentLabel": name, **codes[name]})
    return check_segments(SegmentTable(tuple(items)), class_names, where)


def class_codes(
    class_names: Sequence[str],
    codes_file: str | Path | None,
    beside: str | Path | None = None,
    data: str | Path | None = None,
) -> dict[str, Any]:
    """What each class is in DICOM's terms: asked before training, so that no SEG ever carries another organ's name.

    The first that tells decides: `codes` beside the weights, `codes` of the images' `dataset.json`, the file, where
    it is of these very classes; and, class by class, the standard's own tables (see `offer_code`).

    Args:
        class_names: the background first.
        codes_file: dcmqi's JSON.
        beside: weights, whose folder may hold a `model.json` or a `metrics.json`.
        data: folder that may hold a `dataset.json`.

    Returns:
        Class name to codes, as `segment_table` takes them.

    Raises:
        SettingError: a class has no code, or one of another meaning.

    Example:
        >>> [codes[TYPE]["CodeValue"] for codes in class_codes(["background", "liver", "spleen"], None).values()]
        ['10200004', '78961009']
    """
    files = [Path(beside).with_name(name) for name in (DEFINITION, RESULTS)] if beside else []
    files += [Path(data, DATALIST)] if data else []
    for file in files:
        given = _read(file).get("codes") if file.is_file() else None
        if isinstance(given, Mapping) and given:
            return _by_class(segment_table(given, class_names, f"{file.name}, codes"))
    if codes_file is not None and Path(codes_file).is_file():
        table = SegmentTable.from_json(codes_file)
        if all(
            name in _names(item) for name, item in zip(class_names[1:], table.segments, strict=False)
        ) and len(table.segments) == len(class_names) - 1:  # fmt: skip
            return _by_class(check_segments(table, class_names, Path(codes_file).name))
    offered = {name: offer_code(name) for name in class_names[1:]}
    if absent := [name for name, code in offered.items() if code is None]:
        expected = f"a DICOM code of class {absent[0]!r}, in `codes` of {DATALIST} or of the definition"
        raise SettingError(expected, "none", "class names")
    return _by_class(segment_table(offered, class_names, "class names"))


def segments_of(class_names: Sequence[str], codes_file: str | Path | None, weights: str | Path) -> SegmentTable:
    """The coded labels of a trained network, as a DICOM SEG carries them.

    Args:
        class_names: of the network's outputs, the background first.
        codes_file: dcmqi's JSON, taken where it is of these very classes.
        weights: the network's, whose folder tells more.

    Raises:
        SettingError: as `class_codes`.
    """
    return segment_table(class_codes(class_names, codes_file, weights), class_names, "codes")


def _by_class(table: SegmentTable) -> dict[str, Any]:
    kept = (CATEGORY, TYPE, "recommendedDisplayRGBValue", "SegmentAlgorithmName")
    found = {}
    for item in table.segments:
        # The class's own name is that which is no longer text.
        name = str(item.get("SegmentDescription") or item["SegmentLabel"])
        label = {"SegmentLabel": item["SegmentLabel"]} if item.get("SegmentLabel", name) != name else {}
        found[name] = {**label, "SegmentDescription": name, **{key: item[key] for key in kept if key in item}}
    return found


def _names(item: Mapping[str, Any]) -> set[str]:
    return {str(item[key]) for key in ("SegmentDescription", "SegmentLabel") if item.get(key)}


def _check_code(code: Mapping[str, str], among: Any, where: str) -> None:
    value, scheme, meaning = (str(code[key]) for key in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    if scheme.startswith("99"):
        return
    if among is not None:
        meanings = [known.meaning for known in among if (known.value, known.scheme_designator) == (value, scheme)]
    else:
        meanings = list(_by_value().get((scheme, value), ()))
    if not meanings:
        raise SettingError("a code of the standard's tables (PS3.16), or a private scheme (99...)",
                           f"{scheme} {value}", where)  # fmt: skip
    if meaning.lower() not in [known.lower() for known in meanings]:
        raise SettingError(f"{scheme} {value} with its meaning, {min(meanings, key=len)}", repr(meaning), where)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SettingError("JSON text", type(error).__name__, file.name) from error
    return content if isinstance(content, Mapping) else {}


@lru_cache
def _concepts(group: str) -> Mapping[str, Any]:
    return dict(Collection(group).concepts)


@lru_cache
def _by_value() -> Mapping[tuple[str, str], Sequence[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for scheme in ("SCT", "DCM", "FMA", "NEU", "RADLEX", "UMLS", "NCIt"):
        for code in _concepts(scheme).values():
            found.setdefault((scheme, code.value), []).append(code.meaning)
    return found


@lru_cache
def _by_meaning() -> Mapping[str, Any]:
    """Structures that the standard lets a segment be of (CID 7151, 7192 and 7194), by their meaning."""
    groups = ("CID7192", "CID7194", "CID7151")
    return {code.meaning.lower(): code for group in groups for code in _concepts(group).values()}


def _category(code: Any) -> str:
    held = {group: {known.value for known in _concepts(group).values()} for group in (*_LESIONS, _FLUIDS)}
    if any(code.value in held[group] for group in _LESIONS):
        return "MorphologicallyAbnormalStructure"
    return "BodySubstance" if code.value in held[_FLUIDS] else "AnatomicalStructure"


def _as_json(code: Any) -> dict[str, str]:
    scheme = code.scheme_designator
    return {"CodeValue": code.value, "CodingSchemeDesignator": scheme, "CodeMeaning": code.meaning}
