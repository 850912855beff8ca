"""How good a served model is on videos whose labels are known.

>>> from clipserve.evaluation import evaluate
>>> evaluation = evaluate("labels.csv", model="x3d_m")
>>> evaluation.show()
>>> evaluation.to_html("report.html")
"""
