"""DICOM: headers, slices made a volume, stored pixels and grey values; series, segmentations and reports out."""
