"""What happens when: the labels of a long video, window by window.

window.py      one window and its labels
options.py     what callers can ask for
request.py     the request, and what its responses say
protocol.py    when to send, to go on and to give up, without the network
stream.py      the gRPC stream, blocking and awaiting
timelines.py   the windows of one video, for callers
many.py        the windows of many videos
opening.py     both of them from their arguments
segments.py    windows joined into labelled stretches
progress.py    the progress bar, in video time

command.py     `clipserve timeline`
output_plan.py what it writes, and where
window_file.py windows in a file that another run continues; window_lines.py: its formats; job.py writes it
formats.py     stretches in the formats of players and annotation tools
page.py        an HTML page; picture.py: a picture

truth.py       true stretches; detection.py: how well others agree with them; evaluation.py: the report
"""
