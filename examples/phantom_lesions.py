"""Simulated breast ultrasound lesions of three classes, written as DICOM files with a `dataset.json`.

    python examples/phantom_lesions.py --output phantoms --training 120 --validation 60 --test 300

The images follow what radiologists look for (BI-RADS ultrasound lexicon), loosely and with overlap between classes:

- cyst: round, smooth, nearly free of echoes, brighter tissue behind it (posterior enhancement);
- benign: a smooth ellipse, wider than tall, moderately darker than its surroundings;
- malignant: irregular and spiculated, often taller than wide, darker tissue behind it (shadow).

They make the demo run without a download. They are no substitute for patient data.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid
from scipy.ndimage import gaussian_filter

from monai_medmerge.data.datasets import write_datalist
from monai_medmerge.files import whole_folder

CLASS_NAMES = ("cyst", "benign", "malignant")
DYNAMIC_RANGE = 60.0  # dB from black to white
Range = tuple[float, float]


@dataclass(frozen=True)
class Lesion:
    """From what ranges the lesions of one class are drawn, uniformly.

    Args:
        aspect: width over height.
        spicules: height of the spicules over the radius.
        echo: level inside against the surrounding tissue, dB.
        posterior: level behind the lesion against the tissue beside it, dB.
        margin: width of the transition at the border over the radius.
    """

    aspect: Range
    spicules: Range
    echo: Range
    posterior: Range
    margin: Range


LESIONS = {
    "cyst": Lesion(aspect=(0.8, 1.5), spicules=(0.0, 0.1), echo=(-22, -8), posterior=(0, 8), margin=(0.05, 0.2)),
    "benign": Lesion(aspect=(0.9, 1.7), spicules=(0.0, 0.2), echo=(-13, -5), posterior=(-3, 4), margin=(0.05, 0.25)),
    "malignant": Lesion(aspect=(0.6, 1.2), spicules=(0.1, 0.4), echo=(-16, -6), posterior=(-10, 0), margin=(0.1, 0.35)),
}


def outline(lesion: Lesion, size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel is lesion: 1 inside, 0 outside, (depth, lateral)."""
    depth, lateral = np.mgrid[0:size, 0:size] / size
    depth, lateral = depth - rng.uniform(0.3, 0.55), lateral - rng.uniform(0.35, 0.65)
    tilt = rng.normal(0.0, 0.2)
    depth, lateral = (
        depth * np.cos(tilt) - lateral * np.sin(tilt),
        depth * np.sin(tilt) + lateral * np.cos(tilt),
    )
    radius, stretch = rng.uniform(0.11, 0.22), np.sqrt(rng.uniform(*lesion.aspect))
    distance = np.hypot(depth * stretch, lateral / stretch) / radius
    angle = np.arctan2(depth, lateral)
    border = np.ones_like(angle)
    for waves in (2, 3):  # every lesion is a little uneven
        border += rng.normal(0.0, 0.04) * np.sin(waves * angle + rng.uniform(0, 2 * np.pi))
    peaks = np.abs(np.sin(rng.integers(3, 7) * angle + rng.uniform(0, 2 * np.pi))) ** 3
    border += rng.uniform(*lesion.spicules) * (peaks - peaks.mean())
    softness = rng.uniform(*lesion.margin) / 4
    return 1 / (1 + np.exp(np.clip((distance - border) / softness, -50, 50)))


def speckle(size: int, rng: np.random.Generator) -> np.ndarray:
    """Fully developed speckle: the Rayleigh-distributed envelope of a band-limited complex Gaussian field, mean 1."""
    width = (0.008 * size, 0.014 * size)  # the beam resolves depth better than its lateral direction
    real, imaginary = (gaussian_filter(rng.normal(size=(size, size)), width, mode="wrap") for _ in range(2))
    envelope = np.hypot(real, imaginary)
    return envelope / envelope.mean()


def simulate(label: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """One B-mode image of a lesion of class `label`: uint8, (depth, lateral)."""
    lesion = LESIONS[CLASS_NAMES[label]]
    inside = outline(lesion, size, rng)
    layers = gaussian_filter(rng.normal(size=(size, size)), (0.04 * size, 0.15 * size), mode="nearest")
    level = rng.uniform(1.5, 3.5) * layers / layers.std()
    level += rng.uniform(-10, 2) * np.linspace(0, 1, size)[:, None]  # what the depth gain leaves uncorrected
    level += rng.uniform(*lesion.echo) * inside
    # Attenuation adds up along the beam, so what lies behind a lesion shows how much of it was crossed.
    crossed = inside.cumsum(axis=0)
    level += rng.uniform(*lesion.posterior) * crossed / crossed.max()
    decibel = level + 20 * np.log10(speckle(size, rng) + 0.02) + rng.uniform(-36, -24)
    return np.round(np.clip(1 + decibel / DYNAMIC_RANGE, 0, 1) * 255).astype(np.uint8)


def to_dicom(pixels: np.ndarray, number: int, study: str, instance: str) -> Dataset:
    """A single-frame ultrasound image (US Image Storage) of a phantom.

    Args:
        pixels: uint8, (row, column).
        number: InstanceNumber (0020,0013).
        study: what the UIDs of study and series are derived from.
        instance: what the UID of this image is derived from.
    """
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = UltrasoundImageStorage
    image.SOPInstanceUID = generate_uid(entropy_srcs=[study, instance])
    image.StudyInstanceUID = generate_uid(entropy_srcs=[study, "study"])
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[study, "series"])
    image.Modality = "US"
    image.PatientName = image.PatientID = "PHANTOM"
    image.Manufacturer = "simulated"
    for keyword in (  # the standard wants these present, if need be empty
        *("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
        *("AccessionNumber", "PatientOrientation"),
    ):
        setattr(image, keyword, None)
    image.SeriesNumber = 1
    image.InstanceNumber = number
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.QualityControlImage = "YES"  # (0028,0300): not an image of a patient
    image.BurnedInAnnotation = "NO"
    image.LossyImageCompression = "00"
    image.set_pixel_data(pixels, "MONOCHROME2", bits_stored=8, generate_instance_uid=False)  # it has one already
    return image


def write_phantoms(
    folder: str | Path, training: int = 120, validation: int = 60, test: int = 300, size: int = 96, seed: int = 0
) -> Path:
    """Write a dataset folder of phantoms, the classes in turn; the same arguments give the same bytes.

    Args:
        folder: the folder to make; it must be absent or empty.
        training, validation, test: number of images of each section.
        size: rows and columns of an image, pixels.
        seed: an image depends on it, its section and its number, not on how many others there are.

    Returns:
        The folder.

    Raises:
        DatasetError: the folder holds something already.
    """
    counts = {"training": training, "validation": validation, "test": test}
    entries: dict[str, list[dict[str, object]]] = {section: [] for section in counts}
    with whole_folder(folder) as partial:
        for position, (section, count) in enumerate(counts.items()):
            (partial / section).mkdir()
            for index in range(count):
                label = index % len(CLASS_NAMES)
                pixels = simulate(label, size, np.random.default_rng([seed, position, index]))
                name = f"{section}/{index:05d}.dcm"
                image = to_dicom(pixels, index + 1, f"phantom lesions {size} {seed} {section}", str(index))
                image.save_as(partial / name, enforce_file_format=True)
                entries[section].append({"image": name, "label": label})
        about = {"name": "phantom lesions", "licence": "Apache-2.0", "size": size, "seed": seed}
        write_datalist(partial, entries, CLASS_NAMES, about)
    return Path(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write simulated ultrasound lesions as DICOM files.")
    parser.add_argument("--output", type=Path, required=True, help="the folder to make")
    for option, default in (("training", 120), ("validation", 60), ("test", 300), ("size", 96), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    arguments = parser.parse_args()
    written = write_phantoms(
        arguments.output, arguments.training, arguments.validation, arguments.test, arguments.size, arguments.seed
    )
    print(f"{written}: {arguments.training + arguments.validation + arguments.test} images")
