"""Whole-slide images whose total pixel matrix the test wrote, and highdicom's reading of it."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import VLWholeSlideMicroscopyImageStorage, generate_uid
from transforms.objects import item
from transforms.phantoms import new_dataset, save, set_pixels
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms import DicomSeriesReader, MedicalImageReader


def matrix(rows=20, columns=27, seed=0, samples=3):
    shape = (rows, columns, 3) if samples == 3 else (rows, columns)
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def cut(image, size=8):
    """The tiles of an image along rows, then down, filled up at the edges, and their corners."""
    rows, columns = image.shape[:2]
    tiles, corners = [], []
    for top in range(0, rows, size):
        for left in range(0, columns, size):
            tile = np.full((size, size, *image.shape[2:]), 7, image.dtype)
            part = image[top : top + size, left : left + size]
            tile[: part.shape[0], : part.shape[1]] = part
            tiles.append(tile)
            corners.append((top, left))
    return np.stack(tiles), corners


def write_slide(path, tiles, size, corners=None, series="1.2.3", flavor="VOLUME", extra=None, **attributes):
    """Write a slide, TILED_FULL unless corners are given."""
    dataset = new_dataset(VLWholeSlideMicroscopyImageStorage, "SM")
    set_pixels(dataset, tiles, "RGB" if tiles.ndim == 4 else "MONOCHROME2")
    dataset.NumberOfFrames = len(tiles)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = series, "1.2.4", "1.2.5"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", flavor, "NONE"]
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = size
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    dataset.TotalPixelMatrixOriginSequence = [
        item(XOffsetInSlideCoordinateSystem=20, YOffsetInSlideCoordinateSystem=30)
    ]
    measures = item(PixelSpacing=[0.0005, 0.0004], SliceThickness=0.01)
    dataset.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures])]
    dataset.DimensionOrganizationType = "TILED_FULL" if corners is None else "TILED_SPARSE"
    if corners is not None:
        dataset.PerFrameFunctionalGroupsSequence = []
        for number, (top, left) in enumerate(corners):
            place = item(RowPositionInTotalImagePixelMatrix=top + 1, ColumnPositionInTotalImagePixelMatrix=left + 1)
            if extra is not None:
                place.ZOffsetInSlideCoordinateSystem = extra[number]
            dataset.PerFrameFunctionalGroupsSequence.append(item(PlanePositionSlideSequence=[place]))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return save(dataset, path)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_total_pixel_matrix_is_put_together(tmp_path, sparse, samples):
    image = matrix(samples=samples)
    tiles, corners = cut(image)
    if sparse:
        order = np.random.default_rng(1).permutation(len(tiles))
        tiles, corners = tiles[order], [corners[i] for i in order]
    path = write_slide(tmp_path / "a.dcm", tiles, image.shape[:2], corners if sparse else None)
    array, meta = read(path)
    np.testing.assert_array_equal(array[:, :, 0], np.swapaxes(image, 0, 1))
    np.testing.assert_allclose(meta["spacing"][:2], [0.0004, 0.0005])
    reader = MedicalImageReader()
    assert reader.get_data(reader.read(path))[0].shape == (27, 20, 3)[: image.ndim]
    # The column of the matrix runs against x of the slide, its row against y; RAS turns both signs.
    expected = [[0, 0.0005, 0, -20], [0.0004, 0, 0, -30]]
    np.testing.assert_allclose(meta["affine"][:2], expected, atol=1e-9)


def test_levels_are_chosen_and_label_pictures_left_out(tmp_path):
    images = [matrix(20, 27, 1), matrix(10, 14, 2)]
    for number, image in enumerate(images):
        write_slide(tmp_path / f"{number}.dcm", cut(image)[0], image.shape[:2])
    write_slide(tmp_path / "9.dcm", cut(matrix(8, 8))[0], (8, 8), flavor="LABEL")
    with pytest.raises(
        DicomSeriesError, match=r"one level of a slide, found 2, choose by level \(0: 27x20, 1: 14x10\)"
    ):
        read(tmp_path)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read(tmp_path, level=number)[0][:, :, 0], np.swapaxes(image, 0, 1))
    with pytest.raises(DicomSeriesError, match="a level below 2"):
        read(tmp_path, level=2)


def test_a_concatenation_is_one_level(tmp_path):
    image = matrix()
    tiles, _ = cut(image)
    name = generate_uid()
    for number, part in enumerate((tiles[:5], tiles[5:])):
        offset = {"ConcatenationUID": name, "ConcatenationFrameOffsetNumber": 5 * number}
        write_slide(tmp_path / f"{1 - number}.dcm", part, image.shape[:2], **offset)
    np.testing.assert_array_equal(read(tmp_path)[0][:, :, 0], np.swapaxes(image, 0, 1))


@pytest.mark.parametrize("sparse", [False, True])
def test_focal_planes_are_chosen(tmp_path, sparse):
    images = [matrix(seed=1), matrix(seed=2)]
    parts = [cut(image) for image in images]
    tiles = np.concatenate([part[0] for part in parts])
    if sparse:
        heights = [z for z, part in zip((0.0, 0.01), parts, strict=True) for _ in part[1]]
        path = write_slide(tmp_path / "a.dcm", tiles, images[0].shape[:2], parts[0][1] + parts[1][1], extra=heights)
    else:
        path = write_slide(tmp_path / "a.dcm", tiles, images[0].shape[:2], TotalPixelMatrixFocalPlanes=2)
    with pytest.raises(DicomSeriesError, match="one focal plane and optical path, found 2"):
        read(path)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read(path, volume=number)[0][:, :, 0], np.swapaxes(image, 0, 1))


def test_missing_tiles_are_refused_or_white(tmp_path):
    image = matrix()
    tiles, corners = cut(image)
    path = write_slide(tmp_path / "a.dcm", tiles[1:], image.shape[:2], corners[1:])
    with pytest.raises(DicomSeriesError, match="64 of 540 pixels in none"):
        read(path)
    with pytest.warns(UserWarning, match="64 of 540 pixels in none"):
        array, _ = read(path, policies={"gap": "warn"})
    image[:8, :8] = 255
    np.testing.assert_array_equal(array[:, :, 0], np.swapaxes(image, 0, 1))
    with pytest.raises(DicomSeriesError, match="pixels in none"):
        read(write_slide(tmp_path / "b.dcm", tiles[:-1], image.shape[:2]))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"TotalPixelMatrixColumns": 16}, "as many tiles as the matrix takes"),
        ({"TotalPixelMatrixColumns": None}, "TotalPixelMatrixColumns"),
        ({"TotalPixelMatrixRows": 2**20, "TotalPixelMatrixColumns": 2**20}, "max_bytes"),
        ({"DimensionOrganizationType": None}, "the place of each tile"),
    ],
)
def test_a_slide_without_what_is_needed_is_refused(tmp_path, attributes, reason):
    image = matrix()
    with pytest.raises(DicomSeriesError, match=reason):
        read(write_slide(tmp_path / "a.dcm", cut(image)[0], image.shape[:2], **attributes))


def test_tiles_that_disagree_or_lie_outside_are_refused(tmp_path):
    image = matrix()
    tiles, corners = cut(image)
    for place, reason in (((0, 4), "agree where they overlap"), ((40, 0), "within the matrix")):
        path = write_slide(tmp_path / "a.dcm", tiles, image.shape[:2], [*corners[:-1], place])
        with pytest.raises(DicomSeriesError, match=reason):
            read(path)


def test_a_slide_is_no_series_of_slices(tmp_path):
    image = matrix()
    with pytest.raises(DicomSeriesError, match="tiles of a slide"):
        DicomSeriesReader().locate(write_slide(tmp_path / "a.dcm", cut(image)[0], image.shape[:2]))
