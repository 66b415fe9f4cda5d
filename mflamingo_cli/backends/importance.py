"""Importance of the columns of each matrix: squares of its inputs, summed while the torch back end computes."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from quant import layout
from quant.imatrix import WEIGHED_ROLES, Sums


class Collector:
    """Sums of squared inputs of the language model's matrices, by GGUF name, collected wherever they are used inside `with`.

    Sums that were added inside a `with` that ends in an error are removed again.
    """

    def __init__(self, model: Any) -> None:
        modules = {layout.canonical(f"{name}.weight"): module for name, module in model.named_modules()}
        text = model.config.get_text_config()
        rules = [rule for rule in layout.text_rules(text.model_type) if rule.role in WEIGHED_ROLES]
        layers = range(text.num_hidden_layers)
        self._modules = {rule.gguf.format(layer): modules[rule.hf.format(layer)] for layer in layers for rule in rules}
        self.sums = {name: Sums(np.zeros(module.in_features), 0) for name, module in self._modules.items()}
        self._kept = self.sums
        self._hooks: list[Any] = []

    @property
    def n_tokens(self) -> int:
        """Positions that were computed so far."""
        return max(sums.count for sums in self.sums.values())

    def __enter__(self) -> Collector:
        self._kept = dict(self.sums)
        self._hooks = [module.register_forward_pre_hook(self._add(name)) for name, module in self._modules.items()]
        return self

    def _add(self, name: str) -> Any:
        def add(module: Any, inputs: tuple[Any, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])  # (tokens, columns)
            squares = rows.float().square().sum(0).cpu().numpy()
            self.sums[name] = Sums(self.sums[name].squares + squares, self.sums[name].count + len(rows))

        return add

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        if error is not None:
            self.sums = self._kept
