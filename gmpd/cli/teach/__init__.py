"""G, M and P, shown and measured: behind `gmpd demo --walkthrough` and `--cpu-bound`."""
