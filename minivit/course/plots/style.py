"""One look for all figures: large type, colours that colour-blind readers tell apart (Okabe & Ito 2008)."""
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
BASELINES = {"chance": (GREY, ":"), "random weights": (ORANGE, "--"), "raw pixels": (RED, "-.")}


def use_style() -> None:
    plt.rcParams.update({
        "figure.dpi": 72, "savefig.dpi": 160, "font.size": 12, "axes.titlesize": 13, "axes.labelsize": 12, "legend.fontsize": 11,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 2,
        "image.interpolation": "nearest", "figure.constrained_layout.use": True,
    })  # fmt: skip


def save_slide(figure: Figure, stem: Path, alt: str) -> list[Path]:
    """Write png, svg and pdf at 16:9 with type of at least 14 pt, and the alt text beside them."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.set_size_inches(12.8, 7.2)
    for text in figure.findobj(lambda artist: hasattr(artist, "set_fontsize") and hasattr(artist, "get_fontsize")):
        text.set_fontsize(max(14, text.get_fontsize() * 1.2))
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".pdf")]
    for path in paths:
        figure.savefig(path, metadata={"Title": alt[:200]} if path.suffix != ".svg" else {"Title": alt[:200], "Date": None})
    stem.with_suffix(".txt").write_text(alt + "\n", encoding="utf-8")
    return paths
