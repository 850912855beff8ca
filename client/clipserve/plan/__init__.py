"""`clipserve plan`: from videos a second to servers, cores, GPUs and memory, by measured figures.

command.py        the command
workload.py       what is to be planned: its options
figures.py        reads what was measured: figures.json, each figure with its machine and source
load_test.py      reads the results of `clipserve loadtest`
costs.py          what one video costs
capacity.py       what one server can do
utilisation.py    how much of that it can use
planning.py       from all of these to servers, cores, GPUs and memory
arithmetic.py     the lines that show each step
"""
