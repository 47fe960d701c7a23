"""Latent Dirichlet allocation; start with mean_field.py and collapsed.py."""

from skvi.models.topics.corpus import Corpus
from skvi.models.topics.families import FAMILIES, Settings
from skvi.models.topics.priors import Priors
from skvi.models.topics.starts import (
    from_posterior,
    from_random_proportions,
    from_topics,
    swept,
)

__all__ = [
    "FAMILIES",
    "Corpus",
    "Priors",
    "Settings",
    "from_posterior",
    "from_random_proportions",
    "from_topics",
    "swept",
]
