"""Sphinx configuration: ``sphinx-build -W docs docs/_build``."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # so that options can name `conf.x`

project = "skvi"
author = "The skvi developers"
copyright = "2026, The skvi developers"
release = version = installed_version("skvi")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/**/*.ipynb", "auto_examples/**/*.md5"]

# Markdown pages: $...$ and $$...$$ are mathematics; headings can be linked to
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# API reference: what skvi itself defines, not what every estimator inherits or
# scikit-learn generates
autosummary_generate = True
autodoc_typehints = "none"
autodoc_default_options = {
    "members": True,
    "inherited-members": (
        "BaseEstimator, RegressorMixin, ClassifierMixin, ClusterMixin, "
        "DensityMixin, TransformerMixin, MultiOutputMixin, "
        "ClassNamePrefixFeaturesOutMixin, OneToOneFeatureMixin, object"
    ),
    "exclude-members": (
        "get_metadata_routing, set_fit_request, set_partial_fit_request, "
        "set_predict_request, set_predict_proba_request, "
        "set_predict_log_proba_request, set_decision_function_request, "
        "set_score_request, set_transform_request, set_output"
    ),
}
numpydoc_show_class_members = False
numpydoc_validation_checks = set()
numpydoc_xref_param_type = False


# Gallery: every script runs in its quick mode; those outside the pattern (the
# benchmarks) are shown but not run
def quick_arguments(gallery_conf, script_vars):
    """Command-line arguments of every example in the gallery."""
    return ["--quick"]


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": (
        r"[/\\](plot_\w+|quickstart|mean_field_bargain|pipeline_uncertainty"
        r"|mixture_uncertainty|how_many_components|topic_uncertainty"
        r"|topics_in_a_pipeline|regimes|why_structure|structural_series|neural_states"
        r"|classification_uncertainty|counts_with_exposure|hierarchy)"
        r"\.py$"
    ),
    "reset_argv": "conf.quick_arguments",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skvi"
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}
