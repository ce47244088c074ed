"""Hydra's way into tlprotocols: a sweeper that hands over the whole sweep, and the launchers of its backends."""
