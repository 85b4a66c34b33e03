"""Triton kernels for what a GPU is slow at when PyTorch launches it piece by piece.

Each has a plain form beside it that gives the same, which its test compares it with. Triton comes
with torch's CUDA builds; nothing here is imported where it is missing.
"""
