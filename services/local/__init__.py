"""Runs a whole Vitrine on one machine: `make run`, `make demo`, and the real processes of tests and benchmarks."""
