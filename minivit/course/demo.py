"""The headless demo: train, evaluate, draw."""
from pathlib import Path

import matplotlib

from minivit.augment import generator_of
from minivit.course.plots.ch00 import demo as draw
from minivit.course.plots.ch00 import nearest, pick_query
from minivit.course.plots.common import tsne
from minivit.course.plots.style import use_style
from minivit.evaluate import extract_features
from minivit.presets import final_figures, preset


def run_demo(out: Path, *, steps: int | None = None, seed: int = 0) -> dict[str, float]:
    """Train ``simclr/pocket`` and write the picture; returns the final figures."""
    chosen = preset("simclr/pocket", **({"steps": steps} if steps else {}))
    train, test = chosen.load()
    untrained = chosen.build(len(train.classes), seed).backbone
    method, run = chosen.fit(train, seed=seed)
    final, _ = final_figures(chosen, method, train, test, seed=seed)

    nets = {"before training": untrained, "after training": method.backbone}
    view = method.recipe.eval
    bank = {name: extract_features(net, train, transform=view)[0] for name, net in nets.items()}
    queries = {name: extract_features(net, test, transform=view)[0] for name, net in nets.items()}
    query = pick_query(bank, train.labels, queries, test.labels, before="before training", after="after training")
    found = {name: nearest(bank[name], queries[name][query : query + 1], k=6)[0] for name in nets}
    points = {name: tsne(features[:500]) for name, features in queries.items()}

    images = train.images[:7].float() / 255
    views = [list(v.unnormalise(v(images, generator_of("demo", i)))) for i, v in enumerate(method.recipe.views)]
    matplotlib.use("Agg")
    use_style()
    landmarks = method.landmarks(chosen.batch_size)
    figure = draw([list(images), *views], run.history("loss"), landmarks["chance"], points, test.labels[:500], train, test, query, found)
    figure.savefig(out)
    print(f"picture: {out}")
    return final
