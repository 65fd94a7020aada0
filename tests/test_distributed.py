"""Two processes on halves of a batch give what one process gives on the whole: loss, gradients, running statistics."""
import copy

import children
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from randomise import normal, randomise
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from minivit import distributed
from minivit.augment import Batch
from minivit.layers.heads import mlp_head
from minivit.layers.norm import BatchNorm, set_batch_norm
from minivit.methods import MoCo, MoCoV3, SimCLR
from minivit.methods.base import Method
from minivit.models import create_model

EXACT = {"rtol": 1e-9, "atol": 1e-9}
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
IMAGES = 10


def method_of(gather=None) -> SimCLR:
    return randomise(SimCLR(create_model("resnet_pocket", width=5), temperature=0.3, gather=gather))


def moco_v3_of(gather=None) -> MoCoV3:
    heads = {"projector": mlp_head(40, 11, 7, out_norm="bn_plain"), "predictor": mlp_head(7, 11, 7, out_norm="bn_plain")}
    return randomise(MoCoV3(create_model("resnet_pocket", width=5), **heads, temperature=0.3, gather=gather))


def moco_of(gather=None, groups=1) -> MoCo:
    settings = {"projector": mlp_head(40, 11, 7, hidden_norm=None), "queue_size": 30, "temperature": 0.3, "groups": groups}
    return randomise(MoCo(create_model("resnet_pocket", width=5), **settings, gather=gather))


def step_of(model: torch.nn.Module, method: Method, part: slice) -> dict:
    """Loss, gradients and everything that a step changes but the optimizer."""
    torch.manual_seed(3)  # as `fit` does, alike in all processes: MoCo's order of keys
    loss, _ = model(batch_of(part), 0.0)
    loss.backward()
    method.after_step(0.0)
    gradients = {name: p.grad for name, p in method.named_parameters() if p.requires_grad}
    return {"loss": loss.detach(), "gradients": gradients, "buffers": dict(method.named_buffers())}


def batch_of(part: slice) -> Batch:
    views = tuple(normal(IMAGES, 3, 11, 13, seed=seed)[part] for seed in (0, 1))
    return Batch(views, labels=torch.zeros(len(views[0]), dtype=torch.long), index=torch.arange(IMAGES)[part])


def norm_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into a BatchNorm, and the weights of the sum that comes out."""
    return normal(IMAGES, 7, 3, 5, seed=2) + 1, normal(IMAGES, 7, 3, 5, seed=3)


def work(rank: int, folder: str) -> None:
    """One of the two processes: its half of the batch; what it got goes to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(rank * IMAGES // 2, (rank + 1) * IMAGES // 2)
    method = set_batch_norm(method_of(distributed.gather), sync=True)
    model = DistributedDataParallel(method, broadcast_buffers=False)  # must live until backward: it averages the gradients there
    loss, _ = model(batch_of(half), 0.0)
    loss.backward()
    moco_v3, moco = set_batch_norm(moco_v3_of(distributed.gather), sync=True), moco_of(distributed.gather)
    steps = {}
    for name, other in (("moco_v3", moco_v3), ("moco", moco)):
        parallel = DistributedDataParallel(other, broadcast_buffers=False)
        steps[name] = step_of(parallel, other, half)
    x, weight = (t[half] for t in norm_inputs())
    x.requires_grad_()
    norm = randomise(BatchNorm(7, sync=True))
    out = norm(x)
    (out * weight).sum().backward()
    results = {
        "place": (distributed.rank(), distributed.world_size()),
        "losses": (loss.detach(), distributed.mean(loss.detach())),
        "gradients": {name: p.grad for name, p in method.named_parameters() if p.requires_grad},
        "buffers": dict(method.named_buffers()),
        **steps,
        "norm": {"out": out.detach(), "gradient": x.grad, "weight": norm.weight.grad, "buffers": dict(norm.named_buffers())},
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("two"))
    mp.start_processes(work, args=(folder,), nprocs=2, start_method=children.WAY)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one() -> tuple[SimCLR, torch.Tensor]:
    method = method_of()
    loss, _ = method(batch_of(slice(None)), 0.0)
    loss.backward()
    return method, loss.detach()


def test_loss_of_two_processes_is_that_of_the_joined_batch(two, one):
    assert [result["place"] for result in two] == [(0, 2), (1, 2)]
    (first, mean_there), (second, mean_here) = (result["losses"] for result in two)
    assert abs(first - second) > 1e-6  # each process has its own anchors
    assert_close((first + second) / 2, one[1], **EXACT)
    assert_close((mean_there, mean_here), (one[1], one[1]), **EXACT)


def test_gradients_of_two_processes_are_those_of_the_joined_batch(two, one):
    expected = {name: p.grad for name, p in one[0].named_parameters() if p.requires_grad}
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    for result in two:
        assert_close(result["gradients"], expected, **EXACT)


def test_running_statistics_of_two_processes_are_those_of_the_joined_batch(two, one):
    for result in two:
        assert_close(result["buffers"], dict(one[0].named_buffers()), **EXACT)


def test_moco_v3_of_two_processes_is_that_of_the_joined_batch(two):
    """Each process has its own queries and all keys; gradients and running statistics of both encoders are the joined batch's."""
    method = moco_v3_of()
    one = step_of(method, method, slice(None))
    first, second = (result["moco_v3"] for result in two)
    assert abs(first["loss"] - second["loss"]) > 1e-6
    assert_close((first["loss"] + second["loss"]) / 2, one["loss"], **EXACT)
    for result in (first, second):
        assert_close(result["gradients"], one["gradients"], **EXACT)
        assert_close(result["buffers"], one["buffers"], **EXACT)


def test_moco_of_two_processes_is_that_of_two_virtual_gpus(two):
    """Statistics of each half, keys shuffled over both: the same from two processes and from two groups of one."""
    method = moco_of(groups=2)
    one = step_of(method, method, slice(None))
    first, second = (result["moco"] for result in two)
    assert_close((first["loss"] + second["loss"]) / 2, one["loss"], **EXACT)
    for result in (first, second):
        assert_close(result["gradients"], one["gradients"], **EXACT)
        assert_close(result["buffers"]["queue"], one["buffers"]["queue"], **EXACT)
    for name in ("backbone.bn1.running_mean", "momentum_backbone.bn1.running_mean"):  # each process keeps its own half's
        assert_close((first["buffers"][name] + second["buffers"][name]) / 2, one["buffers"][name], **EXACT)
    whole = moco_of()
    assert abs(step_of(whole, whole, slice(None))["loss"] - one["loss"]) > 1e-4


def test_sync_batch_norm_is_pytorchs_on_the_joined_batch(two):
    ours = randomise(BatchNorm(7))
    peer = torch.nn.BatchNorm2d(7, dtype=torch.float64)
    peer.load_state_dict(ours.state_dict())
    x, weight = norm_inputs()
    x.requires_grad_()
    out = peer(x)
    (out * weight).sum().backward()
    norms = [result["norm"] for result in two]
    assert_close(torch.cat([norm["out"] for norm in norms]), out.detach(), **TIGHT)
    assert_close(torch.cat([norm["gradient"] for norm in norms]), x.grad, **TIGHT)
    assert_close(sum(norm["weight"] for norm in norms), peer.weight.grad, **TIGHT)
    for norm in norms:
        assert_close(norm["buffers"], dict(peer.named_buffers()), **TIGHT)


def test_without_gather_or_sync_two_processes_are_not_one(one):
    """Each of the two matters: else the tests above could not fail."""
    halves = []
    for half in (slice(0, IMAGES // 2), slice(IMAGES // 2, IMAGES)):
        halves.append(method_of()(batch_of(half), 0.0)[0].detach())
    assert abs(sum(halves) / 2 - one[1]) > 1e-2


def test_in_one_process_everything_is_the_identity():
    local = normal(2, 5, 7)
    everyone, offset = distributed.gather(local)
    assert everyone is local
    assert (offset, distributed.rank(), distributed.world_size()) == (0, 0, 1)
    assert distributed.mean(local) is local
    distributed.start()
    assert not dist.is_initialized()
    norm = randomise(BatchNorm(7))
    synced = set_batch_norm(copy.deepcopy(norm), sync=True)
    x = normal(5, 7)
    assert torch.equal(norm(x), synced(x))
