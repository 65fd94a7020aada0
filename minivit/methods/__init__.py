"""Methods by name, one file each."""
from minivit.methods.base import Method
from minivit.methods.moco import MoCo
from minivit.methods.moco_v3 import MoCoV3
from minivit.methods.simclr import SimCLR
from minivit.methods.supervised import LinearProbe, Supervised

METHODS: dict[str, type[Method]] = {"simclr": SimCLR, "moco": MoCo, "moco_v3": MoCoV3, "supervised": Supervised}
