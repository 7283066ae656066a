"""DICOM series that tests write."""

import io

import numpy as np


def series(count=6, skip=(), twice=False, series="1.2.3") -> dict[str, bytes]:
    """The files of a DICOM series of so many slices, 2.5 mm apart, in a mixed order."""
    import pydicom

    files = {}
    for at in range(count):
        if at in skip:
            continue
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{at + 1}"
        ds = pydicom.Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 4, 5, 16, 12, 11
        ds.PixelRepresentation, ds.SamplesPerPixel, ds.PhotometricInterpretation = 0, 1, "MONOCHROME2"
        ds.SeriesInstanceUID = series
        ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.75]
        ds.ImagePositionPatient = [10, 20, 2.5 * (at if not twice else min(at, count - 2))]
        ds.RescaleSlope, ds.RescaleIntercept = "2", "-1024"
        ds.PixelData = np.full((4, 5), 100 + at, np.uint16).tobytes()
        target = io.BytesIO()
        pydicom.dcmwrite(target, ds, enforce_file_format=True)
        files[f"{(at * 5) % count}.dcm"] = target.getvalue()
    return files
