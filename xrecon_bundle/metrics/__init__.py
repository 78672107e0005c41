"""How far a reconstruction can be trusted: image measures, overlap of regions, agreement of measurements."""
