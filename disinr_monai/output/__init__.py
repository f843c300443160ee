"""Results for people and viewers: metrics, NIfTI, DICOM, pictures, tables, report."""
