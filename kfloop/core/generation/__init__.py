"""Generated pictures judged without the internet: by a small classifier trained on the same data, and by distances to real rows.

``Judge`` is made once from the real rows and then judges any number of generators on the same terms; ``GaussianBaseline`` is the simple
generator that a deep one is compared with.

========================  =========  ==================================================================================
figure                    better     what it says
========================  =========  ==================================================================================
``frechet_distance``      lower      distance of two normal distributions: features of samples and of real test rows
``train_on_samples``      higher     accuracy on real test rows of a classifier that has seen samples alone
``train_on_real``         --         accuracy of the same classifier on as many real training rows: the ceiling
``coverage``              higher     share of real test rows with a sample among what is near to them
``classes``               higher     share of classes whose samples the judge mostly takes for that class
``copies``                lower      share of samples that cling to one training row; about .01 for real test rows
========================  =========  ==================================================================================

A Frechet distance depends on the number of samples: compare figures of equally many. Every figure comes as ``Replicates``; those of two
generators may be subtracted when they were asked for the same labels, with the same ``seed`` and ``resamples``.
"""

from kfloop.core.generation.baseline import GaussianBaseline
from kfloop.core.generation.judge import Judge
from kfloop.core.generation.measures import frechet_distance

__all__ = ["GaussianBaseline", "Judge", "frechet_distance"]
