"""Estimators: what scikit-learn sees."""
