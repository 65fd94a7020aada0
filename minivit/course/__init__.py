"""What the notebooks need and the library does not. Nothing outside this package imports it, save the command line when it runs."""
from minivit.course.checks import check
from minivit.course.claims import print_ledger
from minivit.course.notebook import announce, band, guess, predict, setup, show, show_source

__all__ = ["announce", "band", "check", "guess", "predict", "print_ledger", "setup", "show", "show_source"]
