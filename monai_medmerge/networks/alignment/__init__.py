"""Channels of one network brought into the order of another."""
