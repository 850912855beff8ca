"""`clipserve plan`: from videos a second to servers, cores, GPUs and memory, by measured figures.

`figures.py` reads what was measured (`figures.json`, each figure with its machine and source), `workload.py` says what
is to be planned, `costs.py` what one video costs, `load_test.py` reads the results of `clipserve loadtest`,
`planning.py` goes from costs to servers.
"""
