"""Rates of training, decided in the trials' regions with seeds from 10 on; no target of the comparison took part."""

RATES = {"ft": 1e-4, "lpft": 1e-4}
"""As `python -m benchmarks.sites.tune` printed them."""
