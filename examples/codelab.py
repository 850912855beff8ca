"""The codelab as a script. `make_notebook.py` converts it to codelab.ipynb, cell by cell."""

# %% [markdown]
# # A video classification system in five lines
#
# This is the codelab of that name, done with clipserve: classify a folder, evaluate the model, try another model, run
# in parallel, handle bad files, show the result on a page. Two steps are new: serve a network of your own, and fit a
# model to classes of your own. By default it uses `motion`, a small model that knows twelve motions, on videos that it
# generates, so it downloads nothing. If you have the 200 Kinetics-400 videos of the original codelab and a Kinetics
# model, it runs on these unchanged:
#
# ```console
# $ python examples/codelab.py --data reverse_video_search --model x3d_m
# ```
#
# A notebook reads the environment variables `CODELAB_DATA`, `CODELAB_MODEL`, `CODELAB_OTHER`, `CODELAB_URL`,
# `CODELAB_REPOSITORY` and `CODELAB_VIDEOS` instead of these options.

# %% tags=["script"]
import argparse
import os

parser = argparse.ArgumentParser(
    description="The steps of the video classification codelab: classify, evaluate, compare, serve a network of your"
    " own, fit your own classes, run in parallel, handle bad files, show a page.",
    epilog="Each option is also an environment variable (CODELAB_DATA and so on), which the notebook reads.",
)
parser.add_argument("--data", metavar="FOLDER", help="videos and one CSV (id, path, label); default: generated videos")
parser.add_argument("--model", help="the model; default: motion, or x3d_m with --data")
parser.add_argument("--other", metavar="MODEL", help="a second model; default: the same one with other settings")
parser.add_argument("--url", help="host:port of a running server; default: start one")
parser.add_argument("--repository", metavar="DIR", help="the server's repository; without --url: model_repository")
parser.add_argument("--videos", type=int, help="how many videos of each motion to generate; default: 4")
parser.add_argument("--wait", action="store_true", default=None, help="keep the page open until Ctrl-C")
for name, value in vars(parser.parse_args()).items():
    if value is not None:
        os.environ[f"CODELAB_{name.upper()}"] = str(value)

# %%
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

DATA = os.environ.get("CODELAB_DATA")
MODEL = os.environ.get("CODELAB_MODEL", "x3d_m" if DATA else "motion")
OTHER = os.environ.get("CODELAB_OTHER")
URL = os.environ.get("CODELAB_URL")
HERE = "." if Path("model_repository").is_dir() else ".."  # a notebook runs in the folder examples/
REPOSITORY = os.environ.get("CODELAB_REPOSITORY")
VIDEOS_PER_MOTION = int(os.environ.get("CODELAB_VIDEOS", "4"))
WAIT = "CODELAB_WAIT" in os.environ

cleanup = ExitStack()  # the last step stops the server and removes the generated videos

# %% [markdown]
# ## Start a server
#
# On the command line, `clipserve export MODEL` exports a model and `clipserve serve` starts Triton. This cell does
# both, unless you named a running server. It serves a copy of the model's files, because two steps below add models.

# %%
import shutil

repository = Path(REPOSITORY or f"{HERE}/model_repository")
can_publish = URL is None or REPOSITORY is not None
if URL is None:
    from clipserve_export.exporting import export_network
    from clipserve_export.sources import PublishedSource
    from clipserve_export.specs import SPECS
    from clipserve_server.triton import Triton

    served = [MODEL] if OTHER is None else [MODEL, OTHER]
    for model in served:
        export_network(
            PublishedSource(SPECS[model]),
            format_name="onnx",
            repository=repository,
            reuse=True,  # does nothing if the model is already exported
        )
    copy = Path(cleanup.enter_context(TemporaryDirectory(prefix="clipserve-codelab-")))
    for name in ("decode", "timeline", *served, *(SPECS[model].net_name for model in served)):
        shutil.copytree(repository / name, copy / name)
    repository = copy
    server = Triton(repository, models=served, http_port=0, grpc_port=0, metrics_port=0)
    URL = cleanup.enter_context(server).grpc_url
print(f"the model {MODEL} is served at {URL}")
if not can_publish:
    print("two steps that add models are left out: name the server's model repository by --repository")

# %% [markdown]
# ## Prepare the data
#
# The data are a folder of videos and a CSV file with the columns `id`, `path` and `label`. Paths are relative to the
# folder of the CSV file. Underscores in labels match spaces.

# %%
import pandas as pd

if DATA is None:
    from clipserve_export.motion.scenes import LABELS
    from clipserve_export.motion.videos import write_motion_video

    folder = Path(cleanup.enter_context(TemporaryDirectory(prefix="clipserve-codelab-")))
    rows = []
    for label in LABELS:
        for number in range(VIDEOS_PER_MOTION):
            path = folder / label.replace(" ", "_") / f"{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            # One seed per video. The model was trained on videos of other seeds.
            write_motion_video(path, label, seed=5_000_000 + len(rows), width=160, height=120, seconds=1.5)
            rows.append({"id": len(rows), "path": path.relative_to(folder), "label": label.replace(" ", "_")})
    labels_csv = folder / "videos.csv"
    pd.DataFrame(rows).to_csv(labels_csv, index=False)
else:
    folder = Path(DATA)
    lists = sorted(folder.glob("*.csv"))
    if len(lists) != 1:
        raise SystemExit(f"{folder} has {len(lists)} CSV files; one is needed, with the columns id, path and label")
    labels_csv = lists[0]

videos = pd.read_csv(labels_csv)
print(f"{len(videos)} videos of {videos['label'].nunique()} classes in {folder}")
print(videos.head(3).to_string(index=False))

# %% [markdown]
# ## Predict in five lines

# %%
from clipserve import VideoClassifier

with VideoClassifier(MODEL, url=URL) as classifier:
    table = classifier.classify_many(folder, top_k=5).table()
table.show(rows=6)

# %% [markdown]
# ## Evaluate
#
# The codelab measures the mean hit ratio at 1, 3 and 5: the share of a video's true labels that are among the best 1, 3
# and 5 predicted labels, averaged over the videos.
#
# For its 200 videos, with 16 or 32 frames from each, the codelab reports
#
# | model | at 1 | at 3 | at 5 | time |
# | --- | --- | --- | --- | --- |
# | `x3d_m` | 0.700 | 0.875 | 0.900 | 39.4 s |
# | `mvit_base_32x3` | 0.745 | 0.900 | 0.920 | 79.2 s |
#
# on its authors' machine, and 23.0 s with five workers. `motion` is right about 98 of 100 generated videos.

# %%
from clipserve.evaluation import evaluate

EXPECTED = {"x3d_m": (0.700, 0.875, 0.900), "mvit_base_32x3": (0.745, 0.900, 0.920)}


def show_hit_ratios(evaluation):
    """Print the mean hit ratios, and the codelab's own for its models and videos."""
    for position, k in enumerate((1, 3, 5)):
        line = f"{evaluation.name}: mean hit ratio at {k}: {evaluation[f'mean_hit_ratio_{k}']:.3f}"
        if DATA and evaluation.name in EXPECTED:
            line += f" (expect {EXPECTED[evaluation.name][position]:.3f})"
        print(line)


evaluation = evaluate(labels_csv, model=MODEL, url=URL)
show_hit_ratios(evaluation)

# %% [markdown]
# ## Try another model
#
# Another model is another name. `clipserve models` lists what `clipserve export` can make: the classifiers of
# PyTorchVideo, with the accuracy that their authors published. [Models and export](../docs/models.md) compares them.

# %%
import shlex

from clipserve.command_line import build_app


def run(command, *paths):
    """Run a command of clipserve, as a terminal would."""
    words = [*shlex.split(command), *map(str, paths)]
    print("$", shlex.join(words))
    if status := build_app()(words[1:], standalone_mode=False):
        raise SystemExit(status)


run("clipserve models --repository", repository)

# %% [markdown]
# If you named no other model, this cell uses the same one with other settings: instead of frames from the whole video,
# three clips as long as those that the model was trained on.

# %%
from clipserve.evaluation import Comparison

if OTHER:
    other = evaluate(labels_csv, model=OTHER, url=URL)
else:
    other = evaluate(labels_csv, model=MODEL, url=URL, sampling="clip", views=3, name=f"{MODEL}, 3 clips")
show_hit_ratios(other)
Comparison({one.name: one for one in (evaluation, other)}).show()

# %% [markdown]
# ## Serve a network of your own
#
# Any network that gives a clip a score for each class becomes a model. The command depends on what you have:
#
# | you have | command |
# | --- | --- |
# | an `nn.Module`, with or without a file of weights | `clipserve export my_nets.py:build --name mine ...` |
# | an ONNX or TorchScript file | `clipserve adopt my_net.onnx --name mine ...` |
# | a checkpoint of Hugging Face, such as VideoMAE | `clipserve export hf:OWNER/NAME --name mine` |
#
# [Models and export](../docs/models.md#your-own-network) has each in full. This cell does the first, with the network
# in `examples/still_or_moving.py`. Two files beside it say what a server must know: the names of the classes, and the
# contract, which is how many frames the network takes, how far apart, and of which size. `clipserve versions --reload`
# makes the running server load the model.

# %%
NETWORK = Path(HERE, "examples", "still_or_moving")

if can_publish:
    run(
        f"clipserve export {NETWORK}.py:StillOrMoving --name still_or_moving"
        f" --contract {NETWORK}.toml --labels {NETWORK}.txt --repository",
        repository,
    )
    run(f"clipserve versions still_or_moving --reload {URL} --repository", repository)
    with VideoClassifier("still_or_moving", url=URL) as classifier:
        answers = classifier.classify_many(labels_csv).table().to_pandas()
    print(pd.crosstab(answers["label"], answers["label_1"].rename("predicted")))

# %% [markdown]
# ## Fit a model to your own classes
#
# If no model knows your classes, label some videos. `fit` trains one layer for them on the features of a served model.
# That takes seconds, because the network stays as it is. The server loads the result at once, as a model with a name of
# its own. On the command line: `clipserve fit labels.csv --on motion --name my_actions`.
# [A model of your own classes](../docs/fit.md) says what the report means, and how many videos are enough.
#
# Here the twelve motions become four classes that `motion` was not trained on. Your own data keep their labels. One
# video of each class is left out of the fit, and classified at the end.

# %%
from clipserve import InvalidRequest, fit

CLASSES = {
    **dict.fromkeys(("moving", "bouncing", "crossing"), "moves"),
    **dict.fromkeys(("growing", "shrinking"), "changes size"),
    **dict.fromkeys(("blinking", "still"), "stays"),
    "rotating": "turns",
}

if can_publish:
    labelled = videos.assign(path=[labels_csv.parent / path for path in videos["path"]])
    if DATA is None:
        labelled["label"] = labelled["label"].str.split("_").str[0].map(CLASSES)
    left_out = labelled.groupby("label").head(1)
    try:
        fitted = fit(labelled.drop(left_out.index), on=MODEL, name="my_actions", url=URL, repository=repository)
    except InvalidRequest as error:  # such as too few videos
        print(error)
    else:
        print(fitted)  # fitted.show() prints the whole report, fitted.to_html(FILE) writes it as a page
        print(fitted.advice)
        with VideoClassifier("my_actions", url=URL) as classifier:
            for row in classifier.classify_many(left_out, on_error="drop"):
                print(f"{row.label}: the model answers {row.prediction.top}")

# %% [markdown]
# ## Run in parallel
#
# Up to `parallel` requests run at the same time. The rows still come in the order of the source.

# %%
import time

with VideoClassifier(MODEL, url=URL) as classifier:
    for parallel in (1, 5):
        started = time.perf_counter()
        table = classifier.classify_many(labels_csv, parallel=parallel).table()
        seconds = time.perf_counter() - started
        print(f"parallel={parallel}: {len(table)} videos in {seconds:.1f} s, {len(table) / seconds:.1f} a second")

# %% [markdown]
# ## Handle bad files
#
# One of these four files is no video. The result is three predictions, and one failure that says what is wrong.
# `on_error="keep"`, the default, makes the failure a row of the table. `"drop"` leaves it out and counts it. `"raise"`
# ends the run.

# %%
three = [labels_csv.parent / path for path in videos["path"].head(3)]
with TemporaryDirectory() as place, VideoClassifier(MODEL, url=URL) as classifier:
    broken = Path(place, "broken.mp4")
    broken.write_bytes(b"this was a video once")
    table = classifier.classify_many([*three[:2], broken, three[2]], on_error="drop").table()
print(table.summary)
for failure in table.failures:
    print(f"{type(failure.error).__name__}: {failure.error}")

# %% [markdown]
# ## Show a page
#
# `clipserve demo` opens a page to try the models. This cell does the same from Python. With `share=True` the page also
# gets a public address for a week.

# %%
from urllib.request import urlopen

from clipserve.showcase import open_showcase

with open_showcase(URL, model=MODEL, samples=folder, port=0) as showcase:
    with urlopen(showcase.address) as page:
        print(f"the page at {showcase.address} answers with status {page.status}")
    if WAIT:
        print("press Ctrl-C to close it")
        showcase.wait()

# %%
cleanup.close()
