"""The folder that MONAI Label's server takes as its app; `main.py` is the app."""
