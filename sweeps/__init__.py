"""Sweep files, one per figure or experiment, and the studies they add up to."""
