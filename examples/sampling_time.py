"""What drawing one variable after the other costs: the time of a draw by the number of columns.

    python sampling_time.py [PICTURE]

An autoregressive model draws x_1, then x_2 given x_1, and so on: D steps that wait for each other,
whatever the machine. A decoder, an invertible map or a generator does it in one pass of products,
which a machine fills with work. Models are new, as what they have learned changes no time; the
sequential ones draw with what was computed of earlier columns, which is their best.
"""

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure

import minivae

COLUMNS = (16, 64, 256, 1024)
MODELS = {
    "NADE": lambda: minivae.NADE(100),
    "PixelRNN": lambda: minivae.PixelRNN(96, n_hidden=48),
    "PixelCNN": lambda: minivae.PixelCNN(2),
    "WaveNet": lambda: minivae.WaveNet(),
    "VAE": lambda: minivae.VAE(20, hidden_layer_sizes=(100,)),
    "Flow": lambda: minivae.Flow(4, hidden_layer_sizes=(100,), dequantize=2),
    "GAN": lambda: minivae.GAN(20, generator_sizes=(100,)),
}
COLOURS = "#332288 #117733 #44AA99 #88CCEE #CC6677 #DDCC77 #AA4499".split()


def milliseconds(model, repeats=9):
    """Median time of one draw, after one that compiles."""
    model.sample(1, 0)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.sample(1, 0)
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


found = {}
print(f"milliseconds of one draw\n\n{'columns':12}" + "".join(f"{D:>9}" for D in COLUMNS)
      + f"{'of D^':>9}")  # fmt: skip
for name, make in MODELS.items():
    found[name] = []
    for D in COLUMNS:
        X = (np.random.default_rng(0).random((8, D)) < 0.5).astype("f4")
        model = make().set_params(epochs=1, batch_size=8, random_state=0).fit(X)
        found[name].append(milliseconds(model))
    # Of the last two: before them what a call costs at all is most of it.
    power = np.log(found[name][-1] / found[name][-2]) / np.log(COLUMNS[-1] / COLUMNS[-2])
    print(f"{name:12}" + "".join(f"{t:9.2f}" for t in found[name]) + f"{power:9.2f}", flush=True)

figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
axes = figure.add_subplot(
    xscale="log", yscale="log", xlabel="columns D", ylabel="one draw, ms", title="Sampling time"
)
for (name, times), colour in zip(found.items(), COLOURS, strict=True):
    style = "-" if minivae.models.find(name.lower()).sampling == "sequential" else "--"
    axes.plot(COLUMNS, times, style, color=colour, marker=".", label=name)
axes.set_xticks(COLUMNS, [str(D) for D in COLUMNS])
axes.minorticks_off()
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "sampling_time.png")
figure.savefig(path)
print(f"\nThe picture is in {path}: broken lines draw all columns in one pass.")
