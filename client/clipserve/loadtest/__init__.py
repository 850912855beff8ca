"""`clipserve loadtest`: put a server under load with NVIDIA's perf_analyzer and real videos.

`load_test.py` runs the measurements in order. Each measurement is one run of perf_analyzer (`perf_analyzer.py`) at one
load level (`load_levels.py`), read into a row of the results (`measurements.py`). `accuracy_check.py` compares answers
under load with answers without load; `report.py` and `plots.py` write the results.

Needs `pip install 'clipserve[loadtest]'`; the embedded server (no --url) needs the extra `server` as well.
"""
