"""Linear probe: the head alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .method import HIGH_RATES, BlockMethod
from .problem import Problem


class LinearProbe(BlockMethod):
    """Trains the last block; features are those of the pre-trained model.

    Of most models that is one linear layer. Where the last block holds more, such as BERT's pooler
    before its classifier, all of it is trained.
    """

    name = "linear-probe"
    title = "linear probe"
    source = "Kornblith et al., Do Better ImageNet Models Transfer Better? (arXiv 1805.08974)"
    rates = HIGH_RATES

    def multipliers(self, problem: Problem, options: Mapping[str, Any]) -> dict[str, float]:
        """The last block."""
        return {problem.head: 1.0}
