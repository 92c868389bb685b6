"""What each package may not import, and the floors inside the packages.

tests/test_layers.py holds the imports against them; scripts/diagrams draws them.
"""

FORBIDDEN = {
    # importer -> packages it must not import anywhere, functions included
    "ptbr_slm/runtime": [
        "ptbr_slm.train",
        "ptbr_slm.data",
        "ptbr_slm_export",
        "ptbr_slm.cli",
        "ptbr_slm.app",
        "torch",
    ],
    "ptbr_slm/serve": ["ptbr_slm.train", "ptbr_slm.data", "ptbr_slm_export", "ptbr_slm.cli", "torch"],
    "ptbr_slm/app": ["ptbr_slm.train", "ptbr_slm.data", "ptbr_slm_export", "torch"],
    "ptbr_slm/data": ["ptbr_slm.train", "ptbr_slm.runtime", "ptbr_slm_export", "ptbr_slm.cli", "torch"],
    "ptbr_slm/eval": ["ptbr_slm.train", "ptbr_slm_export", "ptbr_slm.cli", "torch"],
    "ptbr_slm/tune": [
        "ptbr_slm.runtime",
        "ptbr_slm_export",
        "ptbr_slm.cli",
        "ptbr_slm.app",
        "ptbr_slm.bench",
    ],
    "ptbr_slm/train": [
        "ptbr_slm.tune",
        "ptbr_slm.runtime",
        "ptbr_slm_export",
        "ptbr_slm.cli",
        "ptbr_slm.app",
        "ptbr_slm.bench",
        "onnxruntime",
    ],
    "ptbr_slm/kaggle": ["ptbr_slm.train", "ptbr_slm.runtime", "ptbr_slm_export", "ptbr_slm.cli", "torch"],
    "ptbr_slm/tokenizer": [
        "ptbr_slm.storage",
        "ptbr_slm.chat",
        "ptbr_slm.data",
        "ptbr_slm.train",
        "ptbr_slm.runtime",
        "ptbr_slm.cli",
        "torch",
    ],
    "ptbr_slm/chat": [
        "ptbr_slm.data",
        "ptbr_slm.train",
        "ptbr_slm.tune",
        "ptbr_slm.runtime",
        "ptbr_slm.eval",
        "ptbr_slm_export",
        "ptbr_slm.cli",
        "ptbr_slm.app",
        "torch",
    ],
    "ptbr_slm/doctor": ["ptbr_slm.data", "ptbr_slm_export", "ptbr_slm.cli", "ptbr_slm.app", "torch"],
    "ptbr_slm/bench": ["ptbr_slm_export", "ptbr_slm.cli", "ptbr_slm.app", "onnxruntime"],
    "ptbr_slm/storage": [
        "ptbr_slm.chat",
        "ptbr_slm.train",
        "ptbr_slm.runtime",
        "ptbr_slm.data",
        "ptbr_slm_export",
        "torch",
    ],
    "export/ptbr_slm_export": ["ptbr_slm.train", "ptbr_slm.model", "ptbr_slm.cli", "ptbr_slm.app", "torch"],
}
ALLOWED_FILES = {
    "ptbr_slm/runtime/engines/torch.py": ["torch"],
}

FLOORS = {
    # package -> its parts, from the lowest floor up: a part imports from its own floor and from those below
    "ptbr_slm.chat": [
        {"messages", "template", "encoder", "escape"},
        {"format"},
        {"tuned"},
        {"__init__"},
    ],
    "ptbr_slm.train": [
        {"config", "config_file", "events", "schedule", "state", "session", "process", "run_folder"},
        {"batches", "streams", "distill", "planning", "parallel", "optim"},
        {"gpu_settings", "average", "step", "compile", "evaluate", "checkpoint", "teacher"},
        {"survival", "reporting"},
        {"trainer", "loop", "run", "find_lr", "spec"},
    ],
    "ptbr_slm.tune": [
        {"config", "conversations", "events", "lora", "replay"},
        {"examples", "adapter_files"},
        {"store", "packing", "display"},
        {"preparation", "preference"},
        {"prepared", "watch"},
        {"card"},
        {"spec", "reference"},
        {"preference_spec"},
    ],
    "ptbr_slm.runtime": [
        {"results", "drafting", "sampling", "targets", "protocol", "pace"},
        {"engines", "sequence"},
        {"load", "cache", "batch", "engine_loop", "scoring", "prompt"},
        {"model"},
    ],
    "ptbr_slm_export": [
        {"llama", "tokenizer_compat", "quantization"},
        {"graphs", "gguf", "genai"},
        {"verification", "targets", "fastest"},
        {"export", "measure", "__init__"},
    ],
}
