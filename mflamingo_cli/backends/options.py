"""How a model is opened and how text is generated: the defaults and choices, which help waits for.

Nothing but these stands here, because every command imports it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mflamingo_cli.errors import UsageError

EMBEDDED = ("mini", "small")  # models inside the package, each in the folder of its name
DEFAULT_MODEL = "mini"
BACKENDS = ("auto", "gguf", "torch")
DTYPE_CHOICES = ("auto", "fp32", "bf16", "fp16")
KV_TYPE_CHOICES = ("auto", "f16", "q8_0", "f32")
QUANTIZE_CHOICES = ("none", "int8", "nf4", "fp8")


@dataclass(frozen=True)
class GenerateOptions:
    """How text is generated; the only place of these defaults. Temperature 0 is greedy; a `repetition_penalty` of 1 is none.

    After `thinking_budget` tokens of reasoning the reasoning is closed and the answer asked for. Raises UsageError for what cannot be.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    thinking_budget: int | None = None

    def __post_init__(self) -> None:
        if self.repetition_penalty <= 0:
            raise UsageError(f"a repetition penalty of {self.repetition_penalty:g} is not allowed; 1 is off, 1.1 is usual")
        if self.thinking_budget is not None and self.thinking_budget >= self.max_new_tokens:
            raise UsageError(
                f"a thinking budget of {self.thinking_budget} uses up all {self.max_new_tokens} tokens of the answer; raise --max-tokens"
            )


@dataclass(frozen=True)
class OpenOptions:
    """How a model is opened; "auto" chooses, and `BackendInfo.reason` says why.

    `dtype` and `quantize` belong to torch, `kv_type` to gguf; `threads=None` takes as many as help.
    """

    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    kv_type: str = "auto"
    threads: int | None = None
    quantize: str = "none"
