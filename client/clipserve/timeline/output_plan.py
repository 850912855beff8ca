"""What `clipserve timeline` writes, and where: files of this machine, or objects in a store."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import typer

from clipserve.commands.output import check_folders
from clipserve.errors import InvalidRequest
from clipserve.extras import load
from clipserve.sources.lists import JSON_LINES
from clipserve.sources.remote_paths import is_remote
from clipserve.timeline.formats import FORMATS, JOURNAL, VideoSegments, find_format, write_segments
from clipserve.timeline.options import TimelineOptions
from clipserve.timeline.picture import PICTURES
from clipserve.timeline.segments import SegmentOptions, segments
from clipserve.timeline.window_file import VideoTimeline, WindowFile, write_windows
from clipserve.timeline.window_lines import CSV

WINDOW_FORMATS = {"csv": (CSV,), "jsonl": JSON_LINES}  # with the suffixes of their files


class OutputPlan:
    """What to write, and where.

    Attributes:
        journal: where windows are appended; None without --out.
        is_for_one_video: whether the file can have no second video.

    Raises:
        typer.BadParameter: the options do not go together.
    """

    def __init__(
        self,
        out: str | None,
        format: str | None,
        html: str | None,
        png: str | None,
        windows: TimelineOptions,
        joining: SegmentOptions,
        *,
        as_segments: bool,
        as_json: bool,
    ) -> None:
        self.windows, self.joining, self.as_json, self.as_segments = windows, joining, as_json, as_segments
        self.out, self.html, self.png = out, html, png
        self.journal: str | None = None
        self.is_for_one_video = False
        self._write_out: Callable[[WindowFile], None] | None = None  # at the end
        if format is not None and (format not in FORMATS or not out):
            raise typer.BadParameter(
                f"the option needs --out, and must be one of {', '.join(FORMATS)}; got {format!r}",
                param_hint="--format",
            )
        folder = out is not None and is_folder(out)
        check_folders({"--out": None if folder else out, "--html": html, "--png": png})
        check_extras(html, png)
        if out:
            if as_json:
                raise typer.BadParameter(
                    "the command writes the windows into the file: leave out --json", param_hint="--out"
                )
            self._choose_files(out, format, folder=folder)
        written = self.journal is not None and not self.journal.endswith(CSV)
        if (windows.features or windows.report) and not (as_json or written):
            raise typer.BadParameter(
                "only JSON lines can have it: add --json, or --out FILE.jsonl", param_hint="--features/--report"
            )

    @property
    def has_pictures(self) -> bool:
        """Whether `draw` needs the windows in the end."""
        return bool(self.html or self.png)

    def write(self, file: WindowFile) -> None:
        """Write what is made of the complete journal. Raises ClipserveError or OSError."""
        if self._write_out:
            self._write_out(file)
        self.draw(file.timelines)

    def draw(self, timelines: Callable[[], Iterator[VideoTimeline]]) -> None:
        """Write the page and the picture. Raises ClipserveError or OSError."""
        if self.html:
            from clipserve.timeline.page import write_page

            write_page(self.html, list(timelines()), self.joining)
        if self.png:
            from clipserve.timeline.picture import write_picture

            write_picture(self.png, list(timelines()), self.joining)

    def join(self, timeline: VideoTimeline) -> VideoSegments:
        """The segments of a video."""
        return VideoSegments(timeline.video, segments(timeline.windows, self.joining))

    def _choose_files(self, out: str, format: str | None, *, folder: bool) -> None:
        stored = is_remote(out)
        name = format or find_format(out) or ("jsonl" if stored and not self.as_segments else None)
        if name is None:
            endings = ", ".join(known.suffix for known in FORMATS.values())
            raise typer.BadParameter(
                f"the name must end in {endings}, or --format must name the format; got {out!r}", param_hint="--out"
            )
        as_windows = name in WINDOW_FORMATS and not self.as_segments
        if as_windows and (name == "jsonl" if stored else not folder):
            if not (stored or Path(out).suffix.lower() in WINDOW_FORMATS[name]):
                raise typer.BadParameter(
                    f"the name must end in {FORMATS[name].suffix}; got {out!r}", param_hint="--out"
                )
            self.journal = out
            return
        self.journal = f"{out.rstrip('/')}/{JOURNAL}" if folder else f"{out}.{JOURNAL}"
        if as_windows and not folder:
            self._write_out = lambda file: write_windows(out, self.windows.top_k, file.records())
        else:
            self.is_for_one_video = FORMATS[name].single and not folder
            self._write_out = partial(self._write_segments, out, name, folder)

    def _write_segments(self, out: str, name: str, folder: bool, file: WindowFile) -> None:
        known = (timeline for timeline in file.timelines() if timeline.has_answer)
        write_segments(out, name, map(self.join, known), folder=folder)


def check_extras(html: str | None, png: str | None = None) -> None:
    """Refuse what cannot be written before the work of hours, not after it. Raises typer.BadParameter."""
    for option, path, module in (("--html", html, "jinja2"), ("--png", png, "matplotlib.figure")):
        if path is None:
            continue
        try:
            load(module, "evaluation")
        except InvalidRequest as error:
            raise typer.BadParameter(str(error), param_hint=option) from error
    suffix = Path(png or "").suffix.lower()
    if suffix and suffix not in PICTURES:
        raise typer.BadParameter(f"the name must end in {', '.join(PICTURES)}; got {png!r}", param_hint="--png")


def is_folder(out: str) -> bool:
    """Whether --out names a folder: one that exists, or an address that ends in a slash."""
    return out.endswith("/") if is_remote(out) else Path(out).is_dir()
