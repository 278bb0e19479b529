"""Compressed frames: what they say of themselves, and decoders in processes of their own."""
