"""A sweep executed: on this machine or on a cluster."""
