"""Volumes as files hold them: NIfTI, DICOM series, meshes, binvox, stacks of pictures and arrays."""
