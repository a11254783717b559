"""A simulator of NVIDIA's Python module `tensorrt` 10 and 11, for tests alone.

It is generated from NVIDIA's real bindings, so that no class has a member that the API lacks, and
computes with ONNX Runtime over a fake GPU made of host memory. Nothing that ran on it is a GPU
result. trtforge knows nothing of it: it is reached only by a worker whose PYTHONPATH and
LD_LIBRARY_PATH a test has set (`simulation.Simulation`).
"""
