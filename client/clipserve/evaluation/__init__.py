"""How good a served model is on videos whose labels are known.

>>> from clipserve.evaluation import compare, evaluate
>>> evaluation = evaluate("labels.csv", model="x3d_m")
>>> evaluation.show()
>>> evaluation.to_html("report.html")
>>> compare("labels.csv", ["x3d_s", "x3d_m"]).show()

Needs `pip install 'clipserve[evaluation]'`; importing it loads nothing of that.
"""

from clipserve.evaluation.comparisons import Comparison, Contrast, Difference
from clipserve.evaluation.evaluating import compare, evaluate
from clipserve.evaluation.evaluations import ClassResult, Evaluation, Failure, LabelledVideo
from clipserve.evaluation.figures import Figure
from clipserve.evaluation.intervals import Interval

__all__ = [
    "ClassResult",
    "Comparison",
    "Contrast",
    "Difference",
    "Evaluation",
    "Failure",
    "Figure",
    "Interval",
    "LabelledVideo",
    "compare",
    "evaluate",
]
