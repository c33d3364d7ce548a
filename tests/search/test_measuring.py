import numpy as np

from greensv.search.measuring import typical_step_s


def test_a_step_that_was_held_up_does_not_make_the_others_longer():
    assert typical_step_s(np.array([0.1, 0.1, 5.0, 0.1, 0.12])) == 0.1
