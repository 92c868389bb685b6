"""ONNX Runtime with a simulated CUDA provider over the real CPU one: a card that the host cannot read.

`install()` puts it below onnxruntime's own Python classes, in the place of the compiled ones: what a program
calls is onnxruntime itself. Device addresses are numbers that no host memory has; kernels run on the CPU
provider over hidden arrays. What is checked and counted: see `Card`.

It cannot see what only kernels do: their rounding, their speed, which kernel takes which shape.
"""

from simulated_ort.card import Card, CardError
from simulated_ort.install import install, installed

__all__ = ["Card", "CardError", "install", "installed"]
