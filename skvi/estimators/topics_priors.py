"""From the prior parameters of a topic model to the priors of its model."""

import numpy as np

from skvi.models.topics import Priors

SMALLEST, LARGEST = (
    1e-10,
    1e10,
)  # beyond, the digamma function cancels or is all there is


def resolve_priors(doc_topic_prior, topic_word_prior, n_components, n_words):
    """Priors of K topics over n_words words, or an error that says what is wrong."""
    K = n_components
    learn_documents = _is_auto(doc_topic_prior, "doc_topic_prior")
    learn_topics = _is_auto(topic_word_prior, "topic_word_prior")
    alpha = _positive(
        1.0 / K if doc_topic_prior is None or learn_documents else doc_topic_prior,
        "doc_topic_prior",
        {(): "a number", (K,): "one number a topic"},
    )
    eta = _positive(
        1.0 / K if topic_word_prior is None or learn_topics else topic_word_prior,
        "topic_word_prior",
        {
            (): "a number",
            (n_words,): "one number a word",
            (K, n_words): "one a topic and word",
        },
    )
    if eta.ndim == 0:
        topics = eta.reshape(1, 1)
    elif eta.ndim == 1:
        topics = eta[:, None]
    else:
        topics = np.ascontiguousarray(eta.T)
    alpha = np.broadcast_to(alpha, (K,)).copy()
    return Priors(alpha, topics, n_words, learn_documents, learn_topics)


def _is_auto(value, name):
    if not isinstance(value, str):
        return False
    if value != "auto":
        raise ValueError(
            f"{name}={value!r} is no word for a prior; the word is 'auto'."
        )
    return True


def _positive(value, name, shapes):
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r} must be made of numbers.") from error
    if array.shape not in shapes:
        allowed = ", ".join(f"{shape} ({what})" for shape, what in shapes.items())
        raise ValueError(
            f"{name} has shape {array.shape}; it must have one of the shapes {allowed}."
        )
    allowed = np.isfinite(array) & (array >= SMALLEST) & (array <= LARGEST)
    if not np.all(allowed):
        raise ValueError(
            f"{name} has the value {array[~allowed].ravel()[0]}; all of it must be "
            f"positive, from {SMALLEST:g} to {LARGEST:g}. A word that a topic must not "
            "have takes a small number, such as 1e-4."
        )
    return array


def prior_attributes(priors):
    """doc_topic_prior_ (K,), and topic_word_prior_: a float, (V,) or (K, V)."""
    eta = priors.topics
    if eta.size == 1:
        topics = float(eta.item())
    elif eta.shape[1] == 1:
        topics = eta[:, 0].copy()
    else:
        topics = np.ascontiguousarray(eta.T)
    return {"doc_topic_prior_": priors.documents.copy(), "topic_word_prior_": topics}
