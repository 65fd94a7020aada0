"""Signature figures for slides, each a pure function of stored data."""
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.figure import Figure

from minivit.augment import generator_of
from minivit.course.claims import ROOT
from minivit.course.plots import ch00, ch01, ch02, ch03, ch05, ch07, ch08, ch09, ch10
from minivit.course.plots.style import save_slide, use_style
from minivit.datasets import load_data
from minivit.engine import batch_ids, make_batch
from minivit.evaluate import extract_features, raw_pixels
from minivit.presets import Preset, preset
from minivit.runs import write_atomic
from minivit.studies import draw, read_study, values
from minivit.transfer import at_window, classifier_accuracy

STORED = Path("data/runs/chapter_00/neighbours.json")
QUERY = 660  # a disc


def record_00(root: Path = ROOT) -> None:
    """Train chapter 00's live run and store who the query's neighbours are, before and after."""
    torch.set_num_threads(1)
    experiment = preset("simclr/pocket_live")
    train, test = experiment.load()
    untrained = experiment.build(len(train.classes), seed=0).backbone
    method, _ = experiment.fit(train, seed=0)
    found = {}
    for name, fn in (("raw pixels", raw_pixels), ("before training", untrained), ("after training", method.backbone)):
        bank, queries = (extract_features(fn, data, transform=method.recipe.eval)[0] for data in (train, test))
        found[name] = ch00.nearest(bank, queries[QUERY : QUERY + 1])[0].tolist()
    write_atomic(root / STORED, (json.dumps({"query": QUERY, "neighbours": found}) + "\n").encode())


def chapter_00(root: Path) -> tuple[Figure, str]:
    stored = json.loads((root / STORED).read_text())
    train, test = load_data("shapes"), load_data("shapes", "test")
    found = {name: torch.tensor(ids) for name, ids in stored["neighbours"].items()}
    figure = ch00.neighbours(train, test, stored["query"], found)
    return figure, ch00.neighbours_alt(train, test, stored["query"], found)


SHUFFLED = Path("data/runs/chapter_01/shuffled.json")
STRIPES = 916  # a picture whose shuffle shows the effect well


def record_01(root: Path = ROOT) -> None:
    """Train chapter 01's two networks of 64 tokens, and store what each says to a picture and to its shuffle."""
    torch.set_num_threads(1)
    order = torch.randperm(64, generator=generator_of("order of 64"))
    answers = {}
    for name, positions in (("without positions", "none"), ("with positions", "sincos")):
        experiment = preset("supervised/pocket_patch4", model_args={"positions": positions})
        train, test = experiment.load()
        method, _ = experiment.fit(train, seed=0)
        picture = test.images[STRIPES : STRIPES + 1]
        with torch.no_grad():
            both = torch.cat([picture, ch01.shuffle(picture, order)]).float() / 255
            logits = method.classifier(method.backbone(method.recipe.eval(both)))
        answers[name] = [[round(p, 4) for p in row] for row in logits.softmax(1).tolist()]
    stored = {"picture": STRIPES, "order": order.tolist(), "answers": answers}
    write_atomic(root / SHUFFLED, (json.dumps(stored) + "\n").encode())


def chapter_01(root: Path) -> tuple[Figure, str]:
    stored, test = json.loads((root / SHUFFLED).read_text()), load_data("shapes", "test")
    picture = test.images[stored["picture"]][None]
    answers = {name: tuple(torch.tensor(row) for row in rows) for name, rows in stored["answers"].items()}
    figure = ch01.says(picture[0], ch01.shuffle(picture, torch.tensor(stored["order"]))[0], answers, test.classes)
    return figure, ch01.says_alt(answers, test.classes)


ARROWS = Path("data/runs/chapter_02/starts.json")


def record_02(root: Path = ROOT) -> None:
    """Store how well the untrained network solves the two puzzles of chapter 02, on the first batch of the run."""
    starts = {}
    for recipe, cell in (("crop only", {"strength": 0.0}), ("crop and colour", {})):
        experiment = preset("simclr/pocket")
        experiment = replace(experiment, view_args=experiment.view_args | cell)
        train, _ = experiment.load()
        method = experiment.build(len(train.classes), seed=0).train()
        ids = batch_ids(len(train), experiment.batch_size, seed=0, step=0)
        _, figures = method(make_batch(train, method.recipe, ids, seed=0, step=0, device=torch.device("cpu")), 0.0)
        starts[recipe] = round(figures["accuracy"].item(), 4)
    write_atomic(root / ARROWS, (json.dumps(starts) + "\n").encode())


def chapter_02(root: Path) -> tuple[Figure, str]:
    _, runs = read_study(root / "data/runs/house")
    before = mean(values(runs, "crop_only", "random_knn"))
    starts = {recipe: (pretext, before) for recipe, pretext in json.loads((root / ARROWS).read_text()).items()}
    ends = {}
    for recipe, cell in (("crop only", "crop_only"), ("crop and colour", "crop_and_colour")):
        pretext = mean(run["last_10"]["accuracy"] for run in runs if run["cell"] == cell)
        ends[recipe] = (pretext, mean(values(runs, cell, "knn")))
    lines = {"chance": 0.1, "random weights": before, "raw pixels": mean(values(runs, "crop_only", "raw_knn"))}
    figure = ch02.usefulness(starts, {"1,000 steps": ends}, lines)
    shown = "; ".join(f"{recipe}: pretext accuracy {x:.2f}, kNN {y:.2f}" for recipe, (x, y) in ends.items())
    alt = "Pretext accuracy against kNN accuracy, with arrows from random weights to the trained networks."
    return figure, f"{alt} {shown}; raw pixels: kNN {lines['raw pixels']:.2f}."


SIMILARITY = Path("data/runs/chapter_03/similarity.json")


def record_03(root: Path = ROOT) -> None:
    """Train chapter 03's live run and store the cosines of eight pictures' projections, before and after."""
    torch.set_num_threads(1)
    experiment = preset("simclr/pocket_turns")
    train, test = experiment.load()
    views = ch03.matrix_views(test, experiment.recipe())
    method = experiment.build(len(train.classes), seed=0)
    stored = {"before": ch03.shown_cosines(method, views)}
    experiment.fit(train, seed=0, method=method)
    stored["after"] = ch03.shown_cosines(method, views)
    rounded = {when: [[round(s, 3) for s in row] for row in matrix.tolist()] for when, matrix in stored.items()}
    write_atomic(root / SIMILARITY, (json.dumps(rounded) + "\n").encode())


def chapter_03(root: Path) -> tuple[Figure, str]:
    stored, experiment = json.loads((root / SIMILARITY).read_text()), preset("simclr/pocket_turns")
    _, runs = read_study(root / "data/runs/chapter_03")
    matrices = (torch.tensor(stored[when]) for when in ("before", "after"))
    thumbnails = ch03.thumbnails(ch03.matrix_views(load_data("shapes", "test"), experiment.recipe()), experiment.recipe())
    classes, turns = ({name: values(runs, "turns", figure) for name, figure in pair.items()} for pair in
                      ({"h": "probe", "z": "z_probe"}, {"h": "turn_h", "z": "turn_z"}))  # fmt: skip
    class_lines, turn_lines = (
        {"chance": chance, "random weights": mean(values(runs, "turns", random)), "raw pixels": mean(values(runs, "turns", raw))}
        for chance, random, raw in ((0.1, "random_probe", "raw_probe"), (0.25, "turn_random", "turn_raw"))
    )
    figure = ch03.signature(thumbnails, *matrices, classes, class_lines, turns, turn_lines)
    return figure, ch03.signature_alt(classes, turns)


STALENESS = Path("data/runs/chapter_05/staleness.json")


def record_05(root: Path = ROOT) -> None:
    """Train chapter 05's runs, five seeds (three of m = 0.9), and store how alike stored and fresh keys are, by age."""
    torch.set_num_threads(1)
    experiment = preset("moco_v2/pocket_live")
    train, _ = experiment.load()
    stored: dict[str, list] = {name: [] for name in ch05.LOOKS}
    for name, logs in stored.items():
        arm = replace(experiment, method_args=experiment.method_args | {"momentum": float(name.removeprefix("m = "))})
        for seed in range(3 if name == "m = 0.9" else 5):
            look = ch05.KeyAge(every=arm.steps // 4)
            arm.fit(train, seed=seed, callbacks=[look])
            logs.append(look.log)
    write_atomic(root / STALENESS, (json.dumps(stored) + "\n").encode())


def chapter_05(root: Path) -> tuple[Figure, str]:
    experiment, found = preset("moco_v2/pocket_live"), json.loads((root / STALENESS).read_text())
    train, blocks = load_data("shapes"), experiment.method_args["queue_size"] // (2 * experiment.batch_size)
    views, after = ch05.key_views(train, experiment.recipe(), blocks, experiment.batch_size)
    return ch05.signature(views, after, blocks, found), ch05.signature_alt(found)


def chapter_07(root: Path) -> tuple[Figure, str]:
    runs = [run for name in ("chapter_07", "chapter_07_beside") for run in read_study(root / "data/runs" / name)[1]]
    batch, curves = preset("moco_v3/pocket_live").batch_size, {}
    for temperature in (0.1, 0.2, 0.5, 1.0):
        losses = [run["loss_every_10"] for run in runs if run["cell"] == f"tau{temperature:g}" and "error" not in run]
        curves[temperature] = ([10 * i for i in range(len(losses[0]))], [mean(at) for at in zip(*losses, strict=True)])
    return ch07.corridors(curves, batch), ch07.corridors_alt(curves, batch)


def chapter_08(root: Path) -> tuple[Figure, str]:
    _, runs = read_study(root / "data/runs/chapter_08")
    heats, knn = {}, {}
    for arm in ("learned", "frozen"):
        kept = next(run["series"] for run in runs if (run["cell"], run["seed"]) == (arm, 0))
        norms = {name.removeprefix("grad/"): kept[name] for name in kept if name.startswith("grad/") and kept[name]}
        heats[arm], every = ch08.ratios_of(norms), len(kept["loss"]) // len(kept["knn"])
        knn[arm] = ([every * (i + 1) - 1 for i in range(len(kept["knn"]))], kept["knn"])
    lines = {"chance": 0.1, **{name: mean(values(runs, "learned", f"{name.split()[0]}_knn")) for name in ("random weights", "raw pixels")}}
    return ch08.heat(heats, knn, lines), ch08.heat_alt(heats, knn)


SEARCH = Path("data/runs/chapter_09/search.json")
CENTRES = {"P, AdamW": (3e-3, 0.05), "P, SGD": (0.15, 1e-4), "C, AdamW": (4e-3, 0.05), "C, SGD": (0.08, 1e-4)}  # those of chapter 09's live runs


def arm_09(name: str, lr: float, weight_decay: float) -> Preset:
    """One training of chapter 09: "P, SGD", say, at this rate and decay."""
    stem, optimizer = name.split(", ")
    preset_name, optimizer = f"supervised/pocket_{stem.lower()}", {"AdamW": "adamw", "SGD": "sgd_plain"}[optimizer]
    return preset(preset_name, optimizer=optimizer, lr=lr, weight_decay=weight_decay)


def interval_09(name: str) -> dict[str, tuple[float, float]]:
    """The paper's interval round the centre of P or C with AdamW or SGD: from an eighth to four times."""
    return {setting: (centre / 8, centre * 4) for setting, centre in zip(("lr", "weight_decay"), CENTRES[name], strict=True)}


def record_09(root: Path = ROOT, draws: int = 16) -> None:
    """Train P and C by AdamW and SGD at random rates and decays, and store the accuracies (null: diverged). Goes on from what is stored."""
    torch.set_num_threads(1)
    train, test = preset("supervised/pocket_p").load()
    begun = {name: {"centre": centre, "lr": [], "weight_decay": [], "accuracy": []} for name, centre in CENTRES.items()}
    stored = json.loads((root / SEARCH).read_text()) if (root / SEARCH).exists() else begun
    for seed in range(len(stored["P, AdamW"]["accuracy"]), draws):
        for name, runs in stored.items():
            found = draw(interval_09(name), seed)
            try:
                accuracy = round(classifier_accuracy(arm_09(name, **found).fit(train, seed=seed)[0], test), 4)
            except FloatingPointError:
                accuracy = None
            for key, value in {**found, "accuracy": accuracy}.items():
                runs[key].append(value)
        write_atomic(root / SEARCH, (json.dumps(stored) + "\n").encode())


def chapter_09(root: Path) -> tuple[Figure, str]:
    stored = json.loads((root / SEARCH).read_text())
    scores = {opt: {stem: np.array(stored[f"{stem}, {opt}"]["accuracy"], dtype=float) for stem in "PC"} for opt in ("AdamW", "SGD")}
    return ch09.distributions(scores), ch09.distributions_alt(scores)


BIASES = Path("data/runs/chapter_10/biases.json")
WAYS = {"table": "table + bicubic", "linear": "linear CPB", "log": "log CPB"}


def record_10(root: Path = ROOT) -> None:
    """Train a pocket Swin with each of three biases at window 4 and store the bias of the head where it is strongest, at 4, 8 and 16."""
    torch.set_num_threads(1)
    stored = {}
    for bias in WAYS:
        experiment = preset("supervised/pocket_swin", model_args={"depth": (2, 2), "bias": bias})
        train, _ = experiment.load()
        trained = experiment.fit(train, seed=1)[0].backbone
        stored[bias] = {}
        for window in (4, 8, 16):
            block = at_window(trained, window).stages[1].blocks[0]
            with torch.no_grad():
                table = block.attn.position_bias.table if bias == "table" else block.attn.position_bias.table()
            head = int(table.flatten(1).std(1).argmax()) if window == 4 else head
            stored[bias][window] = [[round(value, 2) for value in row] for row in table[head].tolist()]
    write_atomic(root / BIASES, (json.dumps(stored) + "\n").encode())


def biases(root: Path = ROOT) -> dict[str, dict[int, torch.Tensor]]:
    """What `record_10` stored: way → window → the bias of every offset."""
    stored = json.loads((root / BIASES).read_text())
    return {WAYS[bias]: {int(window): torch.tensor(table) for window, table in maps.items()} for bias, maps in stored.items()}


def chapter_10(root: Path) -> tuple[Figure, str]:
    alt = "Biases that one head learned at window 4, and what table + bicubic, linear CPB and log CPB make of them at windows 8 and 16: the table is "
    return ch10.extended(biases(root)), alt + "stretched, the other two keep the trained offsets and go on beyond them."


FIGURES = {
    "00": ("00_neighbours", chapter_00, record_00),
    "01": ("01_shuffled", chapter_01, record_01),
    "02": ("02_usefulness", chapter_02, record_02),
    "03": ("03_similarity", chapter_03, record_03),
    "05": ("05_queue", chapter_05, record_05),
    "07": ("07_corridor", chapter_07, lambda root: None),  # all of it is in the study's log
    "08": ("08_heat", chapter_08, lambda root: None),
    "09": ("09_distributions", chapter_09, record_09),
    "10": ("10_biases", chapter_10, record_10),
}


def write(chapter: str, out: Path, *, record: bool = False, root: Path = ROOT) -> list[Path]:
    """Draw the signature figure of a chapter and write it as png, svg and pdf; ``record`` makes its data anew first."""
    if chapter not in FIGURES:
        raise ValueError(f"no signature figure for chapter {chapter!r} yet; there are {', '.join(FIGURES)}.")
    use_style()
    name, draw, make_data = FIGURES[chapter]
    if record:
        make_data(root)
    figure, alt = draw(root)
    return save_slide(figure, out / name, alt)
