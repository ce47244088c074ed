"""A sweep as job arrays of a SLURM cluster."""
