"""The judges against scikit-learn, and the ways in which an evaluation goes wrong unnoticed."""
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from minivit import Supervised, collapse_report, create_model, extract_features, knn_accuracy, linear_probe, load_data
from minivit.augment import View, evaluation
from minivit.evaluate import evaluating, judge, knn_predict, raw_pixels
from minivit.layers.norm import BatchNorm


def blobs(n: int, dim: int = 13, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    y = torch.randint(0, classes, (n,), generator=g)
    return centres[y] + 1.6 * torch.randn(n, dim, generator=g), y


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (20, 0.07), (31, 0.5)])
def test_knn_equals_scikit_learns(k, temperature):
    (x, y), (tx, ty) = blobs(211), blobs(103, seed=1)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature))
    theirs.fit(x.double().numpy(), y.numpy())
    assert knn_predict(x, y, tx, k=k, temperature=temperature).tolist() == theirs.predict(tx.double().numpy()).tolist()
    accuracy = knn_accuracy(x, y, tx, ty, k=k, temperature=temperature)
    assert accuracy == pytest.approx(theirs.score(tx.double().numpy(), ty.numpy()))
    assert 0.3 < accuracy < 0.95  # a case in which something can go wrong


def test_knn_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    y = torch.tensor([0, 0, 1, 1])
    test = torch.tensor([[5.0, 1.0], [0.2, 0.9], [1.0, 0.9]])
    assert knn_predict(x, y, test, k=3).tolist() == [0, 1, 0]
    assert knn_accuracy(x, y, test, torch.tensor([0, 1, 1]), k=3) == pytest.approx(2 / 3)


@pytest.mark.parametrize("l2", [1e-3, 1e-2, 1.0])
def test_probe_equals_scikit_learns_logistic_regression(l2):
    """Sixty training vectors against a thousand: every one of these decays gives another accuracy, so a wrong one shows."""
    (x, y), (tx, ty) = blobs(60), blobs(997, seed=1)
    mean, std = x.double().mean(0), x.double().std(0)
    theirs = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=20_000)
    theirs.fit(((x - mean) / std).numpy(), y.numpy())
    assert linear_probe(x, y, tx, ty, l2=l2) == pytest.approx(theirs.score(((tx - mean) / std).numpy(), ty.numpy()), abs=1e-6)


class Net(nn.Module):
    """BatchNorm that would give itself away in train mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 7, 7), BatchNorm(5)
        self.norm.running_mean.fill_(0.3)

    def forward(self, x):
        return self.norm(self.conv(x)).flatten(1)


def test_features_come_from_eval_mode_and_nothing_is_changed():
    data, net = load_data("shapes", limit=53), Net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    all_at_once, labels = extract_features(net, data, transform=evaluation(32), batch_size=53)
    in_parts, _ = extract_features(net, data, transform=evaluation(32), batch_size=7)
    assert torch.allclose(all_at_once, in_parts, atol=1e-6)  # in train mode the batch would matter
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training and net.norm.training
    assert torch.equal(labels, data.labels) and not all_at_once.requires_grad


def test_features_of_a_diverged_network_are_not_judged():
    data = load_data("shapes", limit=20)
    with pytest.raises(FloatingPointError, match="the network has diverged"):
        extract_features(lambda x: x.flatten(1) / x.flatten(1).sum(1, keepdim=True).mul(0), data, transform=evaluation(32))


def test_a_bound_method_puts_its_owner_into_eval_mode():
    data = load_data("shapes", limit=31)
    model = create_model("vit_pocket_conv8", dim=16, depth=1).train()
    pooled, _ = extract_features(model, data, transform=evaluation(32))
    tokens, _ = extract_features(lambda x: model.forward_tokens(x).mean(1), data, transform=evaluation(32), batch_size=31)
    assert not torch.allclose(pooled, tokens, atol=1e-4)  # a bare lambda cannot know: the docstring says what to do
    pooled, _ = extract_features(model, data, transform=evaluation(32))
    with evaluating(model):
        tokens, _ = extract_features(lambda x: model.forward_tokens(x).mean(1), data, transform=evaluation(32))
    assert torch.allclose(pooled, tokens, atol=1e-6)


def test_evaluating_restores_each_modules_own_mode():
    method = Supervised(create_model("resnet_pocket"), num_classes=10).train()
    method.backbone.layer2.eval()
    modes = [m.training for m in method.modules()]
    with evaluating(method):
        assert not any(m.training for m in method.modules()) and not torch.is_grad_enabled()
    assert [m.training for m in method.modules()] == modes and torch.is_grad_enabled()


def test_the_confusion_matrix_gives_back_the_headline():
    train, test = load_data("shapes", limit=300), load_data("shapes", "test", limit=100)
    scores, confusion = judge(raw_pixels, train, test, transform=evaluation(32))
    confusion = np.array(confusion)
    assert scores["knn"] == pytest.approx(np.trace(confusion) / confusion.sum())
    assert confusion.sum(1).tolist() == [10] * 10


def test_judge_names_test_images_by_training_images():
    train, test = load_data("shapes", limit=300), load_data("shapes", "test", limit=100)
    scores, _ = judge(raw_pixels, train, test, transform=evaluation(32))
    x, tx = (data.images.double().flatten(1).numpy() / 255 for data in (train, test))
    theirs = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1)).fit(x, train.labels.numpy())
    assert scores["knn"] == pytest.approx(theirs.score(tx, test.labels.numpy()))


def test_evaluation_reads_the_feature_and_not_the_projection():
    """Whatever happens to z must not change a score: the judge reads h."""
    from minivit import preset
    from minivit.presets import final_figures

    chosen = preset("simclr/pocket", limit=200)
    train, test = chosen.load()
    method = chosen.build(10)
    right, _ = final_figures(chosen, method, train, test, seed=0)
    h, y = extract_features(method.backbone, train, transform=method.recipe.eval)
    th, ty = extract_features(method.backbone, test, transform=method.recipe.eval)
    assert h.shape[1] == method.backbone.dim
    assert right["knn"] == pytest.approx(knn_accuracy(h, y, th, ty), abs=1e-4)
    assert right["random_knn"] == right["knn"]  # nothing has been trained
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter.zero_()
    assert final_figures(chosen, method, train, test, seed=0)[0] == right


def test_collapse_report_by_hand():
    eye = torch.eye(7).repeat(11, 1)
    report = collapse_report(eye)
    assert report["mean_cosine"] == pytest.approx((11 - 1) * 7 * 11 / (77 * 76))
    assert report["effective_rank"] == pytest.approx(6.0)  # centred, seven unit vectors span six equal directions
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(1, 9)
    assert collapse_report(line)["effective_rank"] == pytest.approx(1.0) and collapse_report(line)["spread"] > 0.9  # fools spread only
    same = collapse_report(torch.ones(50, 9))
    assert same["spread"] == pytest.approx(0, abs=1e-6) and same["mean_cosine"] == pytest.approx(1) and same["effective_rank"] == 1
    sphere = collapse_report(torch.randn(2000, 31, generator=torch.Generator().manual_seed(0)))
    assert sphere["spread"] == pytest.approx(1, abs=0.02) and abs(sphere["mean_cosine"]) < 0.002
    assert sphere["effective_rank"] > 30.5 and sphere["uniformity"] == pytest.approx(-4 + 8 / 31, abs=0.05)


def test_raw_pixels_are_the_pixels():
    data = load_data("shapes", limit=11)
    features, _ = extract_features(raw_pixels, data, transform=View())
    assert torch.equal(features, data.images.float().flatten(1) / 255)
