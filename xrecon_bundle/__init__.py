"""xrecon_bundle: two orthogonal chest radiographs to a CT volume, and the pneumothorax in it measured."""

__version__ = "0.1.0"
