"""Files to arrays and back: chest CTs, radiographs, DICOM out."""
