"""The codelab as a script; `make_notebook.py` makes codelab.ipynb of it, cell by cell."""

# %% [markdown]
# # A video classification system in five lines
#
# The codelab of that name, with clipserve: predict a folder, evaluate, change the model, run in parallel, survive bad
# files, show it to others. By default it uses `motion`, a small model that knows twelve motions, on videos generated
# here, so nothing is downloaded. With the 200 Kinetics-400 videos of the original on disk, and a Kinetics model, it
# runs unchanged:
#
# ```console
# $ python examples/codelab.py --data reverse_video_search --model x3d_m
# ```
#
# In a notebook, the environment variables `CODELAB_DATA`, `CODELAB_MODEL`, `CODELAB_OTHER`, `CODELAB_URL`,
# `CODELAB_REPOSITORY` and `CODELAB_VIDEOS` say the same.

# %% tags=["script"]
import argparse
import os

parser = argparse.ArgumentParser(
    description="The steps of the video classification codelab: predict, evaluate, compare, run in parallel, survive"
    " bad files, show.",
    epilog="Each option is also an environment variable, CODELAB_DATA and so on: the notebook reads those.",
)
parser.add_argument("--data", metavar="FOLDER", help="videos and one CSV with id, path, label; generated if not given")
parser.add_argument("--model", help="the model (motion; with --data x3d_m)")
parser.add_argument("--other", metavar="MODEL", help="the model to compare it with; itself with clips if not given")
parser.add_argument("--url", help="host:port of a running server; one is started if not given")
parser.add_argument("--repository", metavar="DIR", help="what to serve when a server is started (model_repository)")
parser.add_argument("--videos", type=int, help="how many videos of each motion to generate (4)")
parser.add_argument("--wait", action="store_true", default=None, help="leave the page open until Ctrl-C")
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
HERE = "." if Path("model_repository").is_dir() else ".."  # a notebook runs in its own folder
REPOSITORY = Path(os.environ.get("CODELAB_REPOSITORY", f"{HERE}/model_repository"))
VIDEOS_PER_MOTION = int(os.environ.get("CODELAB_VIDEOS", "4"))
WAIT = "CODELAB_WAIT" in os.environ

open_things = ExitStack()  # what the last step closes: a server, a folder

# %% [markdown]
# ## A server
#
# `clipserve export MODEL` makes a model, `clipserve serve` starts a Triton. Where no server is named, both happen here.

# %%
if URL is None:
    from clipserve_export.exporting import export_model
    from clipserve_export.specs import SPECS
    from clipserve_server.triton import Triton

    served = [MODEL] if OTHER is None else [MODEL, OTHER]
    for model in served:
        export_model(
            SPECS[model],
            format_name="onnx",
            weights_source="pretrained",
            labels_file=None,
            repository=REPOSITORY,
            reuse=True,  # does nothing if it is there
        )
    server = Triton(REPOSITORY, models=served, http_port=0, grpc_port=0, metrics_port=0)
    URL = open_things.enter_context(server).grpc_url
print(f"{MODEL} at {URL}")

# %% [markdown]
# ## Prepare the data
#
# A folder of videos, and a CSV with the columns `id`, `path` and `label`. Paths count from the CSV's own folder, and
# underscores in labels match spaces.

# %%
import pandas as pd

if DATA is None:
    from clipserve_export.motion.scenes import LABELS
    from clipserve_export.motion.videos import write_motion_video

    folder = Path(open_things.enter_context(TemporaryDirectory(prefix="clipserve-codelab-")))
    rows = []
    for label in LABELS:
        for number in range(VIDEOS_PER_MOTION):
            path = folder / label.replace(" ", "_") / f"{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            # A seed for each video: the model was trained on others.
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
# The codelab's measure is the mean hit ratio: the share of a video's true labels among the best 1, 3 and 5.
#
# With its 200 videos, 16 or 32 frames spread over each, the codelab reports
#
# | model | at 1 | at 3 | at 5 | time |
# | --- | --- | --- | --- | --- |
# | `x3d_m` | 0.700 | 0.875 | 0.900 | 39.4 s |
# | `mvit_base_32x3` | 0.745 | 0.900 | 0.920 | 79.2 s |
#
# on its authors' machine, and 23.0 s with five workers. `motion` names 98 in 100 of its own kind of videos.

# %%
from clipserve.evaluation import evaluate

EXPECTED = {"x3d_m": (0.700, 0.875, 0.900), "mvit_base_32x3": (0.745, 0.900, 0.920)}


def show_hit_ratios(evaluation):
    """The mean hit ratios, beside the codelab's where the model and the videos are its own."""
    for position, k in enumerate((1, 3, 5)):
        line = f"{evaluation.name}: mean hit ratio at {k}: {evaluation[f'mean_hit_ratio_{k}']:.3f}"
        if DATA and evaluation.name in EXPECTED:
            line += f" (expect {EXPECTED[evaluation.name][position]:.3f})"
        print(line)


evaluation = evaluate(labels_csv, model=MODEL, url=URL)
show_hit_ratios(evaluation)

# %% [markdown]
# ## Change the model
#
# A model is a name. Where the server has no other, the same one is asked with clips of the length it was trained on,
# three of them over each video, in the place of frames spread over all of it.

# %%
from clipserve.evaluation import Comparison

if OTHER:
    other = evaluate(labels_csv, model=OTHER, url=URL)
else:
    other = evaluate(labels_csv, model=MODEL, url=URL, sampling="clip", views=3, name=f"{MODEL}, 3 clips")
show_hit_ratios(other)
Comparison({one.name: one for one in (evaluation, other)}).show()

# %% [markdown]
# ## Run in parallel
#
# Up to `parallel` requests are under way at once; rows come in the order of the source all the same.

# %%
import time

with VideoClassifier(MODEL, url=URL) as classifier:
    for parallel in (1, 5):
        started = time.perf_counter()
        table = classifier.classify_many(labels_csv, parallel=parallel).table()
        seconds = time.perf_counter() - started
        print(f"parallel={parallel}: {len(table)} videos in {seconds:.1f} s, {len(table) / seconds:.1f} a second")

# %% [markdown]
# ## Be safe from exceptions
#
# One bad file among four: three predictions, and one failure that says what is wrong. With `on_error="keep"`, the
# default, the failure stays in its row; "drop" leaves it out and counts it; "raise" ends the run.

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
# ## Show it
#
# `clipserve demo` opens a page to try the models on; this does the same from Python. `share=True` gives it a public
# address for a week.

# %%
from urllib.request import urlopen

from clipserve.showcase import open_showcase

with open_showcase(URL, model=MODEL, samples=folder, port=0) as showcase:
    with urlopen(showcase.address) as page:
        print(f"the showcase answers with {page.status} at {showcase.address}")
    if WAIT:
        print("Ctrl-C closes it")
        showcase.wait()

# %%
open_things.close()
