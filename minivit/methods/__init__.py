"""Methods by name, one file each."""
from minivit.methods.base import Method
from minivit.methods.simclr import SimCLR
from minivit.methods.supervised import LinearProbe, Supervised

METHODS: dict[str, type[Method]] = {"simclr": SimCLR, "supervised": Supervised}
