import numpy as np

from fedvtc.learning.ensemble import Ensemble


def test_two_clients_by_hand():
    ensemble = Ensemble(np.array([1, 0]), num_classes=2)
    # The means are (.35, .65) and (.45, .55); both images have one vote for each class.
    ensemble.add(np.float32([[0.6, 0.4], [0.8, 0.2]]))
    ensemble.add(np.float32([[0.1, 0.9], [0.1, 0.9]]))
    mean_N, vote_N = ensemble.predictions()
    assert mean_N.tolist() == vote_N.tolist() == [1, 1]
    assert ensemble.record() == {"test/ensemble/mean": 0.5, "test/ensemble/vote": 0.5}
    # A third client decides the vote of the second image, but not the mean.
    ensemble.add(np.float32([[0.4, 0.6], [0.51, 0.49]]))
    mean_N, vote_N = ensemble.predictions()
    assert mean_N.tolist() == [1, 1]
    assert vote_N.tolist() == [1, 0]
    assert ensemble.record() == {"test/ensemble/mean": 0.5, "test/ensemble/vote": 1.0}


def test_a_tie_of_votes_is_decided_among_the_tied_classes_alone():
    ensemble = Ensemble(np.array([0]), num_classes=3)
    for probabilities in ([0.5, 0.4, 0.1], [0.0, 0.45, 0.55]):
        ensemble.add(np.float32([probabilities]))
    # Class 1 has the highest mean and no vote.
    assert [predicted_N.tolist() for predicted_N in ensemble.predictions()] == [[1], [2]]
