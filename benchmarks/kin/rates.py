"""Rates of training, decided on validation images with seed 10; no image of the comparison's tests took part."""

RATES = {"ft": 3e-4, "lpft": 3e-4, "student": 1e-3}
"""As `python -m benchmarks.kin.tune` printed them."""
