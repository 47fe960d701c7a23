"""The global posterior of a hidden Markov model."""

from functools import cached_property

from skvi.distributions import Beta, Dirichlets, Gamma, Product
from skvi.models.hmm.messages import ChainWeights

# What draws call the variable of a factor that does not name its own.
PARAMETERS = {Gamma: "rates", Beta: "probabilities", Dirichlets: "probabilities"}


class HMMPosterior(Product):
    """q(pi) q(A) q(emissions), with what the local step reads of it computed once.

    Parameters
    ----------
    startprob : Dirichlet of shape (K,)
    transmat : Dirichlet of shape (K, K)
    emissions : distribution of the states' parameters
    reader : Emissions or None
        Whose table the local step reads; None for posteriors in a user's units.
    """

    def __init__(self, startprob, transmat, emissions, reader=None):
        factors = {"startprob": startprob, "transmat": transmat}
        name = getattr(emissions, "names", None) or PARAMETERS[type(emissions)]
        key = name if isinstance(name, str) else "emissions"
        super().__init__({**factors, key: emissions})
        self.startprob = startprob
        self.transmat = transmat
        self.emissions = emissions
        self.reader = reader

    def __getstate__(self):
        cached = "table", "chain"
        return {k: v for k, v in self.__dict__.items() if k not in cached}

    @cached_property
    def table(self):
        return self.reader.table(self.emissions)

    @cached_property
    def chain(self):
        """Weights of the chain: expected logarithms of its probabilities."""
        return ChainWeights(self.startprob.mean_log, self.transmat.mean_log)

    def with_reader(self, reader):
        return HMMPosterior(self.startprob, self.transmat, self.emissions, reader)

    def with_emissions(self, emissions):
        return HMMPosterior(self.startprob, self.transmat, emissions, self.reader)
