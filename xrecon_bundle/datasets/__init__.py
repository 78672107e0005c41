"""Dataset folders: CTs and radiographs found, prepared, listed; synthetic cohorts; open CTs."""
