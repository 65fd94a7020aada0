"""python -m minivit train | evaluate | study | replay | doctor | claims | figures | bench | grade | demo"""
import difflib
import os
import sys
from dataclasses import replace
from pathlib import Path

import tyro

from minivit.doctor import doctor as examine


def train(
    name: tyro.conf.Positional[str],
    /,
    out: Path | None = None,
    data: str | None = None,
    data_size: int | None = None,
    limit: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    knn_every: int = 0,
    checkpoint_every: int | None = None,
    threads: int | None = None,
) -> None:
    """Train a preset, evaluate it and record the run.

    Args:
        name: A preset, such as simclr/pocket.
        out: Folder of the run; started again with the same words, it goes on from its last checkpoint. Default: runs/NAME-sSEED.
        data: Data set in place of the preset's, such as folder:PATH.
        data_size: Side in pixels to which images are brought once; folders of mixed sizes need it.
        limit: Number of training images.
        steps: Steps in place of the preset's length.
        batch_size: Images per step.
        lr: Peak learning rate.
        seed: Decides weights, order and augmentations.
        knn_every: Measure kNN accuracy every so many steps (0: only at the end).
        checkpoint_every: Steps between checkpoints (default: a tenth of the run).
        threads: CPU threads (default: all).
    """
    import torch

    from minivit import distributed
    from minivit.callbacks import Clock, DenseKNN
    from minivit.presets import preset, train_and_judge

    if threads:
        torch.set_num_threads(threads)
    given = {"data": data, "data_size": data_size, "limit": limit, "steps": steps, "batch_size": batch_size, "lr": lr}
    chosen = preset(name, **{key: value for key, value in given.items() if value is not None})
    chosen = replace(chosen, epochs=None) if steps else chosen
    distributed.start()
    out = out or Path("runs") / f"{name.replace('/', '-')}-s{seed}"
    callbacks = [Clock()]
    if knn_every:
        small = replace(chosen, limit=min(chosen.limit or 5000, 5000))  # balanced, as the first images of a folder are all of one class
        callbacks.append(DenseKNN(*small.load(), every=knn_every))
    print(f"{name}: {chosen.model} on {chosen.data}, batch {chosen.batch_size}; recording to {out}")
    _, run = train_and_judge(chosen, seed=seed, folder=out, callbacks=callbacks, checkpoint_every=checkpoint_every)
    if distributed.rank() == 0:
        print(run.diagnose())
        print(headline(run.card["final"]))


def headline(final: dict[str, float]) -> str:
    """The one line that a run comes to."""
    return f"kNN {final['knn']:.2f} (raw pixels {final['raw_knn']:.2f}, random weights {final['random_knn']:.2f}, chance {final['chance']:.2f})"


def evaluate(run: tyro.conf.Positional[Path], /, data: str | None = None) -> None:
    """Evaluate the newest checkpoint of a run again.

    Args:
        run: Folder of the run.
        data: The images, if they lie elsewhere here.
    """
    from minivit.presets import Preset, final_figures
    from minivit.runs import Run, checkpoints, load_checkpoint

    recorded = Run.load(run)
    chosen = Preset(**recorded.config["preset"])
    chosen = replace(chosen, data=data or chosen.data)
    saved = checkpoints(run)
    if not saved:
        raise FileNotFoundError(f"{run} has no checkpoint to evaluate; its card says what it came to.")
    train_data, test_data = chosen.load()
    seed = recorded.config["fit"]["seed"]
    method = chosen.build(len(train_data.classes), seed)
    method.load_state_dict(load_checkpoint(saved[-1])["method"])
    final, _ = final_figures(chosen, method, train_data, test_data, seed=seed)
    print(f"{saved[-1].name}: probe {final['probe']:.2f} (raw pixels {final['raw_probe']:.2f}, random weights {final['random_probe']:.2f})")
    print(headline(final))


def study(folder: tyro.conf.Positional[Path], /, workers: int = 2, threads: int = 1) -> None:
    """Run what a study still lacks.

    Args:
        folder: A folder with a study.toml, such as data/runs/house.
        workers: Processes.
        threads: Threads of each; with one, a run gives the same bits whatever runs beside it.
    """
    from minivit.studies import failures, sweep

    runs = sweep(folder, workers=workers, threads=threads)
    failed, diverged = failures(runs), sum("diverged" in run for run in runs)
    good = sum("error" not in run for run in runs)
    print(f"{good} runs recorded in {folder / 'runs.jsonl'}, {diverged} of them diverged; {len(failed)} failures")
    if failed:
        raise SystemExit(f"failed, and tried again next time: {', '.join(f'{cell} with seed {seed}' for cell, seed in sorted(failed))}")


def replay(run: tyro.conf.Positional[Path], /, steps: int = 20, data: str | None = None, tolerance: float = 0.01) -> None:
    """Train the first steps of a recorded run again and compare.

    Args:
        run: Folder of the run.
        steps: How many steps.
        data: The images, if they lie elsewhere here.
        tolerance: Largest difference in loss, as a share of the recorded one.
    """
    from minivit.replay import replay as run_again

    agree, rows = run_again(run, steps=steps, data=data, tolerance=tolerance)
    for step, old, new in rows:
        print(f"step {step:4d}  recorded {old:.5f}  here {new:.5f}")
    worst = max(abs(new - old) / abs(old) for _, old, new in rows)
    print(f"{'agrees' if agree else 'DOES NOT AGREE'}: largest difference {worst:.2e} of the loss, tolerance {tolerance:g}")
    if not agree:
        raise SystemExit(1)


def doctor() -> None:
    """Print what a bug report needs, and what is wrong with this machine."""
    facts, problems = examine()
    print("\n".join(facts))
    print("\n".join(f"PROBLEM: {problem}" for problem in problems) or "No problem found.")
    if problems:
        raise SystemExit(1)


def claims(chapter: str | None = None) -> None:
    """Print the ledger of claims, with verdicts computed from the recorded studies.

    Args:
        chapter: Only the claims of this chapter, such as 00.
    """
    from minivit.course.claims import print_ledger

    print_ledger(chapter)


def figures(chapter: tyro.conf.Positional[str], /, out: Path = Path("slides"), record: bool = False) -> None:
    """Draw a chapter's signature figure from stored data, for a slide: png, svg, pdf and alt text.

    Args:
        chapter: Such as 00.
        out: Folder for the files.
        record: Train first and store the figure's data anew.
    """
    from minivit.course.slides import write

    for path in write(chapter, out, record=record):
        print(path)


def bench() -> None:
    """Speed against peers, in turn in one run."""
    import runpy

    folder = Path(__file__).parents[1] / "bench"
    if not folder.is_dir():
        raise FileNotFoundError("the benchmarks are in the repository's bench/, which is not beside this installation.")
    sys.path.insert(0, str(folder.parent))
    runpy.run_module("bench", run_name="__main__")


def grade(
    path: tyro.conf.Positional[Path],
    /,
    part: str | None = None,
    report: Path | None = None,
    show: bool = False,
    all: bool = False,
    csv: Path = Path("marks.csv"),
    student: str | None = None,
    salt: str | None = None,
    homework: str = "hw01",
    spec: Path | None = None,
) -> None:
    """Grade a homework, offline: one file, or with --all everybody's in a folder.

    Args:
        path: The file to grade, such as hw01.py; with --all a folder of ID.py files or ID/hw01.py folders.
        part: Only these parts, such as A or AB.
        report: Also write the marks into this JSON file.
        show: Grade nothing; print which variant is the student's.
        all: Grade a class; the file's or folder's name is the student's id.
        csv: The table of a class.
        student: Id in place of the file's line STUDENT.
        salt: Word that decides the variants, in place of the file's line COURSE.
        homework: Which homework.
        spec: Points and limits in place of the homework's own (a copy of minivit/course/grader/hw01.toml, changed).
    """
    from minivit.course import grader

    if all:
        grader.grade_all(path, csv, homework=homework, salt=salt, spec=spec)
    elif show:
        grader.show(path, homework=homework, student=student, salt=salt)
    else:
        grader.grade(path, part, report=report, homework=homework, student=student, salt=salt, spec=spec)


def demo(out: Path = Path("demo.png"), steps: int | None = None, seed: int = 0) -> None:
    """SimCLR on generated shapes: train, evaluate, and draw all of it into one picture.

    Args:
        out: The picture.
        steps: Steps in place of the preset's 1,000.
        seed: Decides weights, order and augmentations.
    """
    from minivit.course.demo import run_demo

    print(headline(run_demo(out, steps=steps, seed=seed)))


COMMANDS = {f.__name__: f for f in (train, evaluate, study, replay, doctor, claims, figures, bench, grade, demo)}


def main() -> None:
    words = sys.argv[1:]
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        raise SystemExit(f"minivit has no command {words[0]!r}" + (f"; did you mean {near[0]}?" if near else f": {', '.join(COMMANDS)}."))
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m minivit", description="Self-supervised vision transformers, from scratch.")
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if os.environ.get("MINIVIT_TRACEBACK") == "1":
            raise
        raise SystemExit(f"minivit: {error}") from None


if __name__ == "__main__":
    main()
