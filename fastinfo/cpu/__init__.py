"""Kernels for arrays in the processor's memory."""
