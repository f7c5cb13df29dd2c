"""The judge of a data set: what it takes from the real rows is computed once and serves every generator."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.generation.classifier import look, train_classifier
from kfloop.core.generation.measures import clinging, covered, frechet_statistic, share_statistic
from kfloop.core.statistics.bootstrap import Replicates, replicate
from kfloop.core.statistics.metrics import METRICS
from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 5  # as in the paper of coverage: equally many real rows would cover 97 % of each other
COMPARED = 20  # training rows after the nearest one, for copies
COPY_QUANTILE = 0.01  # share of real test rows that cling to a training row more than any picture should
LOOKED_AT = 2000  # samples and test rows whose neighbours among all training rows are looked for
RECOGNISED = 0.5  # share of a class's samples in which the judge must see that class


class Judge:
    """Judges samples of any generator against the same real rows.

    Args:
        train: Training rows uint8 [N, H, W, C].
        train_labels: Class of each, int64 [N].
        test: Test rows uint8 [M, H, W, C].
        test_labels: Class of each, int64 [M].
        n_classes: Number of classes.
        seed: Seed of the classifiers.

    Raises:
        InputError: There are too few real rows to judge by.
    """

    def __init__(
        self,
        train: NDArray[np.uint8],
        train_labels: NDArray[np.int64],
        test: NDArray[np.uint8],
        test_labels: NDArray[np.int64],
        *,
        n_classes: int,
        seed: int = 0,
    ) -> None:
        fewest = COMPARED + 2
        if len(train) < fewest or len(test) < fewest:
            raise InputError(
                f"{len(train)} training rows and {len(test)} test rows are too few to judge samples by, "
                f"expected at least {fewest} of each",
                hint="add examples, or raise data.split.test",
            )
        self.train, self.train_labels = train, train_labels
        self.test, self.test_labels = test, test_labels
        self.n_classes, self.seed = n_classes, seed
        self._accuracy_on_real: dict[int, NDArray[np.bool_]] = {}

    @cached_property
    def network(self) -> Any:
        """The classifier, trained on the training rows."""
        return train_classifier(self.train, self.train_labels, n_classes=self.n_classes, seed=self.seed)

    @cached_property
    def real(self) -> NDArray[np.float32]:
        """Features of the test rows, [M, D]."""
        return look(self.network, self.test)[1]

    @cached_property
    def clings(self) -> float:
        """How near, compared with others, a test row seldom is to its nearest training row."""
        found = clinging(_flat(self.test[_spread(len(self.test), LOOKED_AT)]), self._train_flat, COMPARED)
        return float(np.quantile(found, COPY_QUANTILE))

    @cached_property
    def _train_flat(self) -> NDArray[np.float32]:
        return _flat(self.train)

    def judge(
        self,
        samples: NDArray[Any],
        labels: NDArray[np.int64],
        *,
        resamples: int,
        seed: int,
        groups: NDArray[np.int64] | None = None,
    ) -> dict[str, Replicates]:
        """All figures of one generator.

        ``frechet_distance`` and ``copies`` are resampled over samples, the others over test rows; ``classes`` has no interval, because the
        classes are all there are.

        Args:
            samples: In 0..255, [N, H, W, C]; judged as the bytes they would be stored as.
            labels: The class each was asked to be, int64 [N].
            resamples: Number of bootstrap resamples.
            seed: Seed of the resamples.
            groups: Group of each test row, whose rows are drawn together; null where there are none.

        Raises:
            InputError: The samples have another shape than the real rows, are too few, or are no finite numbers.
        """
        pictures = self._pictures(samples, labels)
        seen, features = look(self.network, pictures)
        close = clinging(_flat(pictures[_spread(len(pictures), LOOKED_AT)]), self._train_flat, COMPARED) < self.clings
        over_samples = replicate(
            {"frechet_distance": frechet_statistic(features, self.real)}, len(pictures), resamples=resamples, seed=seed
        )
        over_samples |= replicate({"copies": share_statistic(close)}, len(close), resamples=resamples, seed=seed)
        count = min(len(self.real), len(features))
        hits = {
            "train_on_samples": self._learned_from(pictures, labels),
            "train_on_real": self._learned_from_real(len(pictures)),
        }
        over_rows = replicate(
            {name: share_statistic(hit) for name, hit in hits.items()},
            len(self.test),
            resamples=resamples,
            seed=seed,
            groups=groups,
        )
        chosen = _spread(len(self.real), count)
        among = covered(self.real[chosen], features[_spread(len(features), count)], NEIGHBOURS)
        some = None if groups is None else np.unique(groups[chosen], return_inverse=True)[1]
        over_rows |= replicate({"coverage": share_statistic(among)}, count, resamples=resamples, seed=seed, groups=some)
        classes = self._recognised(seen, labels)
        fixed = Replicates(point=classes, values=np.full(resamples, np.nan), n=self.n_classes)
        distance = _centred(over_samples["frechet_distance"])
        found = over_samples | over_rows | {"classes": fixed, "frechet_distance": distance}
        return {name: found[name] for name in METRICS["generation"]}

    def _pictures(self, samples: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        if samples.shape[1:] != self.test.shape[1:] or len(samples) != len(labels):
            raise InputError(
                f"the samples have the shape {samples.shape} and {len(labels)} labels, "
                f"expected (N, {', '.join(map(str, self.test.shape[1:]))}) and N labels"
            )
        if len(samples) <= NEIGHBOURS:
            raise InputError(f"{len(samples)} samples are too few to judge, expected more than {NEIGHBOURS}")
        if not np.isfinite(samples).all():
            raise InputError(
                f"{int((~np.isfinite(samples)).sum())} of {samples.size} values of the samples are no finite numbers",
                hint="lower train.learning_rate and train again",
            )
        return np.clip(np.rint(samples), 0, 255).astype(np.uint8)

    def _learned_from(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """On which test rows a classifier that saw these images alone is right."""
        network = train_classifier(images, labels, n_classes=self.n_classes, seed=self.seed)
        found: NDArray[np.bool_] = look(network, self.test)[0] == self.test_labels
        return found

    def _learned_from_real(self, count: int) -> NDArray[np.bool_]:
        count = min(count, len(self.train))
        if count not in self._accuracy_on_real:
            rows = np.random.default_rng(self.seed).permutation(len(self.train))[:count]
            self._accuracy_on_real[count] = self._learned_from(self.train[rows], self.train_labels[rows])
        return self._accuracy_on_real[count]

    def _recognised(self, seen: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
        """Share of the classes asked for whose samples the judge mostly takes for that class."""
        asked = np.unique(labels)
        return float(np.mean([(seen[labels == label] == label).mean() >= RECOGNISED for label in asked]))


def _flat(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32)


def _spread(total: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` of ``total`` rows, evenly spread."""
    count = min(count, total)
    return (np.arange(count) * total) // max(count, 1)


def _centred(found: Replicates) -> Replicates:
    """Replicates around the point: a resample of samples has fewer distinct ones, which makes its distance larger."""
    values = np.maximum(found.values + (found.point - found.values.mean()), 0)
    return Replicates(point=found.point, values=values, n=found.n)
