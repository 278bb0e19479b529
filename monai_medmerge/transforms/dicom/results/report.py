"""A classification as a DICOM structured report (PS3.16, TID 1500)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.files import whole_file
from monai_medmerge.transforms.dicom.archives import is_zip
from monai_medmerge.transforms.dicom.results.source import coded, highdicom, made_here, read_source, require_highdicom
from monai_medmerge.transforms.dicom.series import choose_series, list_series
from monai_medmerge.transforms.foreign import guarded, quiet

SERIES_NUMBER = 302
# Codes of a site's own have schemes that begin with 99 (PS3.16 8.2).
_SCHEME = "99MEDMERGE"
_LONGEST = 64
_EQUIPMENT = ("manufacturer_model_name", "software_versions", "device_serial_number")


def write_structured_report(
    probabilities: Mapping[str, float],
    source: Sequence[str | Path] | str | Path,
    path: str | Path,
    class_codes: Mapping[str, Mapping[str, str]] | None = None,
    series_uid: str | None = None,
) -> Path:
    """Write what a network classified as a TID 1500 measurement report, as an Enhanced SR.

    The class of the highest probability is the finding; the probability of each class is a measurement without unit.
    Patient and study are those of the source, whose images are referenced.

    Args:
        probabilities: class name to probability.
        source: the folder, file or files that were classified, with or without a place in the patient.
        path: the file to write.
        class_codes: class name to "CodeValue", "CodingSchemeDesignator" and "CodeMeaning"; a class without gets a code
            of the private scheme 99MEDMERGE with its name as meaning.
        series_uid: which series of the source, where there are several.

    Returns:
        The path; the file is there whole or not at all.

    Raises:
        SettingError: highdicom is not installed, values are no probabilities, or a name or code does not do.
        DicomSeriesError: the source is no single series, or lacks what is to be referenced.
    """
    require_highdicom("write_structured_report")
    _check(probabilities, class_codes or {})
    with quiet():
        series = choose_series(list_series(source), series_uid)
        where = series.headers[0].where
        if any(is_zip(Path(one)) for one in ([source] if isinstance(source, (str, Path)) else source)):
            raise DicomSeriesError("files that stay, as results reference them", "a zip file", where)
        plain = all(map(str.isascii, [*probabilities, *(str(code) for code in (class_codes or {}).values())]))
        report = guarded(
            DicomSeriesError,
            "a series that a report can reference",
            where,
            lambda: _build(
                probabilities, [read_source(header.path, plain) for header in series.headers], class_codes or {}
            ),
        )
        with whole_file(path) as part:
            report.save_as(part, enforce_file_format=True)
    return Path(path)


def _check(probabilities: Mapping[str, float], class_codes: Mapping[str, Mapping[str, str]]) -> None:
    if not probabilities or not all(math.isfinite(p) and 0 <= p <= 1 for p in probabilities.values()):
        raise SettingError("probabilities from 0 to 1", "others", "probabilities")
    for name in probabilities:
        if not 0 < len(name) <= _LONGEST or not name.isprintable():
            raise SettingError(f"names of 1 to {_LONGEST} printable characters", f"{len(name)}", "probabilities")
    if strange := sorted(set(class_codes) - set(probabilities)):
        raise SettingError("codes of the classes", f"one of {strange[0]!r}", "class_codes")
    for name, code in class_codes.items():
        if not {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"} <= set(code):
            raise SettingError("CodeValue, CodingSchemeDesignator and CodeMeaning", "others", f"class_codes, {name}")


def _build(
    probabilities: Mapping[str, float], sources: list[Dataset], class_codes: Mapping[str, Mapping[str, str]]
) -> Dataset:
    sr = highdicom.sr
    order = list(probabilities)
    named = {name: class_codes.get(name) or _own_code(str(number), name) for number, name in enumerate(order)}
    found = max(order, key=lambda name: probabilities[name])
    made = made_here(SERIES_NUMBER, "Classification")
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(), manufacturer_name=made["manufacturer"], model_name=made["manufacturer_model_name"]
    )
    algorithm = sr.AlgorithmIdentification(name="monai_medmerge", version=made["software_versions"])
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier="classification"),
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(
                name=coded(_own_code(f"P{number}", f"Probability of {named[name]['CodeMeaning']}")),
                value=float(probabilities[name]),
                unit=codes.UCUM.NoUnits,
            )
            for number, name in enumerate(order)
        ],
        finding_type=coded(named[found]),
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(sources[0])],
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device, observer_identifying_attributes=device
            )
        ),
        procedure_reported=coded(_own_code("CLASSIFY", "Classification of images by a network")),
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=sources,
    )
    # Reports have no module of enhanced equipment.
    taken = {key: value for key, value in made.items() if key not in _EQUIPMENT}
    return sr.EnhancedSR(evidence=sources, content=content[0], is_complete=True, **taken)


def _own_code(value: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": _SCHEME, "CodeMeaning": meaning[:_LONGEST]}
