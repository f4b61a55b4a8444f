"""Tests, one folder per room of eva_hpc."""
