"""The kernels: one file per backend, each with ``forward(q, k, v, plan, scale)`` and, where it has gradients, ``backward``.

Tensors here are (heads of all sequences, tokens, dimension); key head n // group serves query head n.
"""
