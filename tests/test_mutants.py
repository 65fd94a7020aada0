"""Each wrong version of the library is noticed by the test that is named beside it: a test that cannot fail proves nothing."""
import pytest
from mutants import MUTANTS, mutate

from minivit.losses import nt_xent

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_does_not_survive(name):
    mutant = MUTANTS[name]
    mutant.test()
    with mutate(mutant.target, mutant.old, mutant.new), pytest.raises(AssertionError):
        mutant.test()
    mutant.test()


def test_mutating_needs_source_that_is_there():
    with pytest.raises(AssertionError, match="occurs 0 times in nt_xent"), mutate(nt_xent, "no such text", ""):
        pass
