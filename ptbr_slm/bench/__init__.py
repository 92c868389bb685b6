"""Measurements that a user runs on their own machine: `ptbr-slm bench`."""
