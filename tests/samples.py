"""Random images, and a test whether two samples come from one distribution."""

import numpy as np
from scipy import stats


def same_distribution(ours, theirs):
    """Kolmogorov-Smirnov, p > 1e-4; not the exact p-value, which takes seconds for thousands."""
    return stats.ks_2samp(ours, theirs, method="asymp").pvalue > 1e-4


def random_images(n, height=32, width=32, seed=0):
    """Uniform noise [n, height, width, 3] in [0, 1]."""
    return np.random.RandomState(seed).rand(n, height, width, 3).astype(np.float32)
