"""The accuracy of a served model on labelled videos.

>>> from clipserve.evaluation import compare, evaluate
>>> evaluation = evaluate("labels.csv", model="x3d_m")
>>> evaluation.show()
>>> evaluation.to_html("report.html")
>>> compare("labels.csv", ["x3d_s", "x3d_m"]).show()

Needs `pip install 'clipserve[evaluation]'`, whose packages are imported when they are used.
"""

from clipserve.evaluation.comparison import Comparison, Contrast, Difference
from clipserve.evaluation.evaluation import ClassResult, Evaluation, Failure
from clipserve.evaluation.ground_truth import LabelledVideo
from clipserve.evaluation.metric_values import METRICS, Interval, Metric, MetricValue
from clipserve.evaluation.run import compare, evaluate

__all__ = [
    "METRICS",
    "ClassResult",
    "Comparison",
    "Contrast",
    "Difference",
    "Evaluation",
    "Failure",
    "Interval",
    "LabelledVideo",
    "Metric",
    "MetricValue",
    "compare",
    "evaluate",
]
