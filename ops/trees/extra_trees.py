"""Extremely randomised trees: the forests of forest.py with drawn thresholds."""

from tilewright.trees.forest import RandomForestClassifier, RandomForestRegressor
from tilewright.trees.parameters import with_parameters_of


class ExtraTreesClassifier(RandomForestClassifier):
    """Extremely randomised trees (Geurts, Ernst, Wehenkel, Machine Learning 63, 2006): each
    feature that a node draws gets one threshold, drawn between its least and greatest value.

    The parameters are those of :class:`RandomForestClassifier`; ``bootstrap`` is off at first.
    Thresholds need no histograms, so that many bins cost little; fewer would blur the tails.
    """

    _random_thresholds = True

    @with_parameters_of(RandomForestClassifier)
    def __init__(self, n_estimators=100, *, bootstrap=False, max_bin=4095, **common):
        super().__init__(n_estimators, bootstrap=bootstrap, max_bin=max_bin, **common)


class ExtraTreesRegressor(RandomForestRegressor):
    """Extremely randomised trees for values, as :class:`ExtraTreesClassifier` has them."""

    _random_thresholds = True

    @with_parameters_of(RandomForestRegressor)
    def __init__(self, n_estimators=100, *, bootstrap=False, max_bin=4095, **common):
        super().__init__(n_estimators, bootstrap=bootstrap, max_bin=max_bin, **common)
