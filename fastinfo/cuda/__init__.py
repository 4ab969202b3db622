"""Computation where the data lives on a CUDA device; mirrors `fastinfo.cpu`."""
