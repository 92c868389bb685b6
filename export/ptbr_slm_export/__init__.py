"""From a Llama model folder to a verified ONNX model: `export_model` and `verify_export`."""

from ptbr_slm_export.folder import ExportReport, Precision, export_model

__all__ = ["ExportReport", "Precision", "export_model"]
