"""Plain numpy twins of the compiled kernels: slow, and easy to check by eye."""


def sweep(gram, residual, ridge, mean, n_sweeps):
    """Twin of skvi.kernels.coordinate.sweep: each coordinate to its maximum in turn."""
    for _ in range(n_sweeps):
        for j in range(len(mean)):
            curvature = gram[j, j] + ridge[j]
            if curvature <= 0.0:
                continue
            step = (residual[j] - ridge[j] * mean[j]) / curvature
            mean[j] += step
            residual -= step * gram[j]
