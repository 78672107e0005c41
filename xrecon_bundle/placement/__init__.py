"""The chest found in a CT or a radiograph, and brought to the chest frame."""
