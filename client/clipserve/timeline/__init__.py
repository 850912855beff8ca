"""Timelines: the labels of a long video, window by window.

window.py      one window and its labels
options.py     the options of timelines
request.py     the request and its responses
protocol.py    when to send, to continue and to give up; no I/O
stream.py      the gRPC stream, for threads and for asyncio
timelines.py   the windows of one video, for callers
many.py        the windows of many videos
opening.py     both of them from their arguments
segments.py    joins windows into segments
progress.py    the progress bar, in seconds of video

command.py     `clipserve timeline`
output_plan.py what it writes, and where
window_file.py a file of windows that another run continues; window_lines.py: its formats; job.py writes it
formats.py     segments in the formats of players and annotation tools
page.py        an HTML page; picture.py: an image

truth.py       true segments; detection.py: average precision; evaluation.py: the report; evaluate_command.py
"""
