"""The shape of a model: one frozen dataclass, the named sizes, and Hugging Face's `config.json` both ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.rope import RopeScaling, frequencies, read_scaling, rope_body, rope_type


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A Llama decoder: RMSNorm, rotate-half RoPE, SwiGLU, grouped-query attention, no biases."""

    vocab_size: int
    """Rows of the embedding; equal to the tokenizer's size."""
    hidden_size: int
    """Width of the residual stream."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key/value heads; divides num_heads."""
    intermediate_size: int
    """Width of the SwiGLU feed-forward."""
    max_seq_len: int
    """Context in tokens: the longest sequence the model is trained or run on."""
    head_dim: int = 64
    """Width of one head. Even, for RoPE."""
    rope_theta: float = 10_000.0
    """RoPE base (Su et al., 2021, arXiv:2104.09864)."""
    rope_scaling: RopeScaling | None = None
    """How a foreign model (Llama 3.1, say) stretches its rotations; ours do not."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    tie_embeddings: bool = True
    """Whether the output head shares the embedding matrix."""
    qk_norm: bool = False
    """RMSNorm of each head's queries and keys before RoPE (Qwen3): the folder is then a Qwen3ForCausalLM."""
    bos_token_id: int | None = 0
    """Token that begins a text; None in a folder that names none."""
    eos_token_ids: tuple[int, ...] = (1,)
    """Tokens that end a text; Llama folders may name several, or none."""
    pad_token_id: int | None = 2

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
                     "intermediate_size", "max_seq_len"):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise _invalid(f"{name} deve ser um inteiro positivo, e não {value!r}.", name)
        if self.num_heads % self.num_kv_heads:
            raise _invalid(
                f"num_kv_heads ({self.num_kv_heads}) deve dividir num_heads ({self.num_heads}).",
                "num_kv_heads",
            )
        if self.head_dim % 2:
            raise _invalid(f"head_dim deve ser par por causa do RoPE, e não {self.head_dim}.", "head_dim")

    @property
    def eos_token_id(self) -> int | list[int] | None:
        """`eos_token_ids` as Hugging Face writes them: None, one id, or a list."""
        ids = self.eos_token_ids
        return list(ids) if len(ids) > 1 else ids[0] if ids else None

    @property
    def q_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.num_kv_heads * self.head_dim

    @property
    def rope_frequencies(self) -> list[float]:
        """Radians a position of each of the D/2 rotations."""
        return frequencies(self.rope_theta, self.head_dim, self.rope_scaling)

    @property
    def layer_parameters(self) -> int:
        """Weights of one decoder layer, its norms included."""
        attention = self.hidden_size * (2 * self.q_size + 2 * self.kv_size)
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return attention + 3 * self.hidden_size * self.intermediate_size + norms

    @property
    def num_parameters(self) -> int:
        """All weights; a tied embedding is counted once."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return embeddings + self.num_layers * self.layer_parameters + self.hidden_size

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` of a LlamaForCausalLM folder; with qk_norm of a Qwen3ForCausalLM one."""
        rope = {"rope_type": "default"} if self.rope_scaling is None else self.rope_scaling.to_hf()
        return {
            "architectures": ["Qwen3ForCausalLM" if self.qk_norm else "LlamaForCausalLM"],
            "model_type": "qwen3" if self.qk_norm else "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_seq_len,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {**rope, "rope_theta": self.rope_theta},
            **({} if self.rope_scaling is None else {"rope_scaling": rope}),  # transformers 4, older vLLM
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": self.tie_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "use_cache": True,
            "dtype": "float32",
        }

    @classmethod
    def from_hf(cls, body: dict[str, Any], *, where: str = "config.json") -> ModelConfig:
        """Read any LlamaForCausalLM `config.json`, or a Qwen3ForCausalLM's, which is a Llama with qk_norm.

        Raises E_MODEL_INVALID where the architecture is another or uses what the graph lacks (biases, another
        activation, a rope scaling other than linear and llama3): never a silent approximation. A key that is
        absent has transformers' default for that architecture; one that is null means none.
        """
        _refuse_foreign(body, where)
        body = _DEFAULTS[body["model_type"]] | body
        try:
            heads = int(body["num_attention_heads"])
            rope = rope_body(body)
            bos, pad = (token_ids(body.get(name)) for name in ("bos_token_id", "pad_token_id"))
            return cls(
                vocab_size=int(body["vocab_size"]),
                hidden_size=int(body["hidden_size"]),
                num_layers=int(body["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(body.get("num_key_value_heads") or heads),
                head_dim=int(body.get("head_dim") or int(body["hidden_size"]) // heads),
                intermediate_size=int(body["intermediate_size"]),
                max_seq_len=int(body["max_position_embeddings"]),
                rope_theta=float(rope.get("rope_theta") or body.get("rope_theta") or 10_000.0),
                rope_scaling=read_scaling(body),
                norm_eps=float(body.get("rms_norm_eps", 1e-6)),
                tie_embeddings=bool(body.get("tie_word_embeddings", False)),
                qk_norm=body["model_type"] == "qwen3",
                bos_token_id=bos[0] if bos else None,
                eos_token_ids=token_ids(body["eos_token_id"]),
                pad_token_id=pad[0] if pad else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SlmError(
                "E_MODEL_INVALID",
                f"config.json incompleto ou com valor inválido ({error}).",
                where=where,
                hint="Use a pasta de um modelo LlamaForCausalLM, como RUN/final.",
            ) from error


_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"bos_token_id": 1, "eos_token_id": 2},
    "qwen3": {"eos_token_id": None, "num_key_value_heads": 32, "head_dim": 128},
}
"""Model type -> what transformers takes where config.json does not say (transformers 5,
models/llama/configuration_llama.py and models/qwen3/configuration_qwen3.py)."""


def token_ids(value: Any) -> tuple[int, ...]:
    """An `eos_token_id`: null, one id or a list; some files write -1 for none.

    Raises TypeError or ValueError for anything else.
    """
    ids = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(i for i in map(int, ids) if i >= 0)


def _refuse_foreign(body: dict[str, Any], where: str) -> None:
    kind, rope = rope_type(body), rope_body(body)
    partial = rope.get("partial_rotary_factor", body.get("partial_rotary_factor", 1.0))
    faults = {
        f"arquitetura {body.get('model_type')!r}": body.get("model_type") not in ("llama", "qwen3"),
        f"rope {kind!r}": kind not in ("default", "linear", "llama3"),
        f"RoPE em parte da cabeça ({partial})": partial not in (None, 1, 1.0),
        "attention_bias": bool(body.get("attention_bias")),
        "mlp_bias": bool(body.get("mlp_bias")),
        "janela deslizante": bool(body.get("use_sliding_window")),
        "pesos quantizados": bool(body.get("quantization_config")),
        f"hidden_act {body.get('hidden_act')!r}": body.get("hidden_act", "silu") not in ("silu", "swish"),
    }
    found = [name for name, present in faults.items() if present]
    if found:
        raise SlmError(
            "E_MODEL_INVALID",
            f"modelo com {', '.join(found)}: só abrimos Llama e Qwen3 sem vieses, em precisão inteira e com "
            "RoPE padrão, linear ou llama3.",
            where=where,
            hint="Use um LlamaForCausalLM, como Tucano-160m, TeenyTinyLlama, SmolLM2 ou um treinado aqui.",
        )


def _invalid(message: str, name: str) -> SlmError:
    return SlmError("E_CONFIG", message, where=f"model.{name}", hint=f"Corrija com --set model.{name}=VALOR.")


DEFAULT_VOCAB_SIZE = 32_000

SIZES: dict[str, ModelConfig] = {
    name: ModelConfig(
        vocab_size=DEFAULT_VOCAB_SIZE,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        intermediate_size=intermediate,
        max_seq_len=1024,
    )
    for name, hidden, layers, heads, kv_heads, intermediate in [
        # With 32,000 tokens: 2.2M, 10.8M, 87.5M, 158.6M, 394.9M, 792.4M parameters.
        ("nano", 64, 3, 1, 1, 192),
        ("mini", 256, 4, 4, 1, 640),
        ("85m", 768, 10, 12, 4, 2048),
        ("160m", 1024, 12, 16, 4, 2560),
        ("400m", 1280, 20, 20, 4, 3584),
        ("800m", 1536, 30, 24, 6, 4096),
    ]
}
"""The named sizes. head_dim 64 and every projection a multiple of 64, for MatMulNBits and tensor cores; wide
rather than deep, since a T4 spends about 5 µs a launch whatever the width (assumed).

See docs/decisions/0001-wide-sizes.md."""


def model_config(size: str, *, vocab_size: int = DEFAULT_VOCAB_SIZE, max_seq_len: int = 1024) -> ModelConfig:
    """The named size with this vocabulary and context. Raises E_MODEL_SIZE for an unknown name."""
    if size not in SIZES:
        raise SlmError(
            "E_MODEL_SIZE",
            f"não existe o tamanho {size!r}.",
            where="--model-size",
            hint=f"Escolha um destes: {', '.join(SIZES)}.",
        )
    return replace(SIZES[size], vocab_size=vocab_size, max_seq_len=max_seq_len)
