"""A DICOM series: the files of one scan, a slice each, sorted by their positions. (DICOM PS3.3, C.7.6.2)"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.volumes.orientation import canonical
from imagegen_dist.data.volumes.volume import Volume, check_extent, needs
from imagegen_dist.wording import counted, first_line

_EVEN = 0.05  # of the usual distance of slices, by which others may differ
_DIRECTIONS = 1e-3  # by which the directions of slices may differ
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax that unpacks to any length
_META_BYTES = 4096  # of the part of a file that names it
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


class _Slice(NamedTuple):
    """One file."""

    name: str
    series: str
    position: NDArray[np.float64]  # of its first pixel in mm, [3], in LPS+
    directions: NDArray[np.float64]  # of its columns' and rows' indexes, [2, 3]
    spacing: tuple[float, float]  # of rows, of columns
    dataset: Any


def read_dicom_series(files: Mapping[str, bytes]) -> Volume:
    """Read the slices of one scan as real values (rescale slope and intercept applied), in the patient's axes.

    files: contents by name. Raises DecodeError if they are not one complete series: several series, slices that are
    missing, twice or in different directions, colours.
    """
    try:
        import pydicom
    except ImportError as error:
        raise needs("a DICOM series", error) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that a standard does not allow, which are of no use here
        slices = [_slice(pydicom, name, data) for name, data in files.items()]
        _check_one_series(slices)
        across, down = slices[0].directions
        normal = np.cross(across, down)
        slices.sort(key=lambda each: float(each.position @ normal))
        step = _step(slices, normal)
        rows, columns = int(slices[0].dataset.Rows), int(slices[0].dataset.Columns)
        check_extent((len(slices), rows, columns))
        values = np.empty((len(slices), rows, columns), np.float32)
        for at, each in enumerate(slices):
            values[at] = _pixels(each, (rows, columns))
    affine = np.eye(4)
    affine[:3, 0] = _LPS_TO_RAS @ (normal * step)
    affine[:3, 1] = _LPS_TO_RAS @ (down * slices[0].spacing[0])
    affine[:3, 2] = _LPS_TO_RAS @ (across * slices[0].spacing[1])
    affine[:3, 3] = _LPS_TO_RAS @ slices[0].position
    return canonical(values, affine, f"{slices[0].dataset.BitsStored}-bit values")


def _slice(pydicom: Any, name: str, data: bytes) -> _Slice:
    if _DEFLATED in data[:_META_BYTES]:
        raise DecodeError(f"has {name}, a deflated file: decompress it first")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        check_extent((rows, columns), f"has the slice {name}, which is")
        if int(getattr(dataset, "NumberOfFrames", 1) or 1) != 1:
            raise DecodeError(f"has {name}, a file of several frames: one slice a file is needed")
        if int(getattr(dataset, "SamplesPerPixel", 1)) != 1:
            raise DecodeError(f"has {name}, a slice in colours")
        position = np.array([float(value) for value in dataset.ImagePositionPatient])
        directions = np.array([float(value) for value in dataset.ImageOrientationPatient]).reshape(2, 3)
        spacing = tuple(float(value) for value in dataset.PixelSpacing)
        series = str(getattr(dataset, "SeriesInstanceUID", ""))
    except DecodeError:
        raise
    except Exception as error:  # pydicom raises many kinds, and the file may be anything
        raise DecodeError(f"has {name}, which is not a DICOM slice: {first_line(error)}") from error
    if position.shape != (3,) or len(spacing) != 2 or not np.isfinite([*position, *directions.flat, *spacing]).all():
        raise DecodeError(f"has {name}, whose position is damaged")
    return _Slice(name, series, position, directions, (spacing[0], spacing[1]), dataset)


def _check_one_series(slices: list[_Slice]) -> None:
    if len(slices) < 2:
        raise DecodeError("has one slice: a series of at least 2 is needed")
    if (series := len({each.series for each in slices})) > 1:
        raise DecodeError(f"has {counted(series, 'series', 'series')}: put each into a folder of its own")
    first = slices[0]
    for each in slices[1:]:
        if np.abs(each.directions - first.directions).max() > _DIRECTIONS:
            raise DecodeError(f"has slices in several directions: {first.name} and {each.name}")
        shape = [int(each.dataset.Rows), int(each.dataset.Columns)]
        if shape != [int(first.dataset.Rows), int(first.dataset.Columns)] or each.spacing != first.spacing:
            raise DecodeError(f"has slices of several sizes: {first.name} and {each.name}")


def _step(slices: list[_Slice], normal: NDArray[np.float64]) -> float:
    """The distance of adjacent slices in mm. Raises DecodeError if they are not evenly spaced."""
    gaps = np.diff([float(each.position @ normal) for each in slices])
    usual = float(np.median(gaps))
    at = int(np.argmin(gaps))
    if gaps[at] < 1e-4:
        raise DecodeError(f"has two slices at one place: {slices[at].name} and {slices[at + 1].name}")
    at = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[at] - usual) > _EVEN * usual:
        raise DecodeError(
            f"lacks slices: {slices[at].name} and {slices[at + 1].name} are {gaps[at]:.4g} mm apart, others "
            f"{usual:.4g} mm"
        )
    return float(gaps.mean())


def _pixels(each: _Slice, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The real values of a slice."""
    dataset = each.dataset
    try:
        values = dataset.pixel_array
        slope, intercept = float(getattr(dataset, "RescaleSlope", 1)), float(getattr(dataset, "RescaleIntercept", 0))
    except Exception as error:  # pydicom raises many kinds, also where a codec is not installed
        raise DecodeError(f"has {each.name}, whose pixels cannot be decoded: {first_line(error)}") from error
    if values.shape != shape:
        raise DecodeError(f"has {each.name}, whose pixels are {values.shape} and not {shape}")
    return (values * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def is_dicom(data: bytes) -> bool:
    """True for the signature of a DICOM file. (DICOM PS3.10, 7.1)"""
    return data[128:132] == b"DICM"
