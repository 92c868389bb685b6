"""From a Llama model folder to a verified ONNX model: `export_model` and `verify_export`."""

from ptbr_slm_export.export import ExportReport, export_model
from ptbr_slm_export.quantization.recipe import Method, Precision, Recipe
from ptbr_slm_export.verification.verify import VerifyReport, verify_export

__all__ = ["ExportReport", "Method", "Precision", "Recipe", "VerifyReport", "export_model", "verify_export"]
