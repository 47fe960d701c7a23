"""What a posterior says of documents when its topics are held."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Folded:
    """Local posteriors of the documents of a corpus.

    Attributes
    ----------
    corpus : Corpus
    concentration : array of shape (n_documents, K)
        Of the Dirichlet of the proportions, by position in the corpus.
    bound : float
        Sum over documents of a lower bound of log p(tokens of the document | q(phi)).
    assignments : Tied
        q(z).
    """

    corpus: object
    concentration: np.ndarray
    bound: float
    assignments: object
