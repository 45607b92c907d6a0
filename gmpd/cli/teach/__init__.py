"""What G, M and P are, shown and measured: behind `gmpd demo --walkthrough` and `--cpu-bound`."""
