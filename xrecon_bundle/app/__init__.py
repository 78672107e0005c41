"""The local page: radiographs dropped in a browser become a CT to look at. Standard library only, 127.0.0.1 only."""
