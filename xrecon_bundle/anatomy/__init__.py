"""Bodies made and changed: the synthetic thorax, a pneumothorax put in, pseudo-patients. Arrays in, arrays out."""
