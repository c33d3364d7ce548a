"""What a cluster's Prometheus has measured: raw samples, and the energy of a SLURM job."""
