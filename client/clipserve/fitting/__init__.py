"""A model of your own classes: a linear head, fitted to the features of a served model.

>>> from clipserve.fitting import fit
>>> fitted = fit("labels.csv", on="x3d_m", name="my_actions")
>>> fitted.show()

    examples           labelled videos with their feature vectors, from a server or a file
    head               the linear head, and how it is fitted
    calibration        the temperature
    cross_validation   the accuracy on held-out videos
    fitted             fits a head and measures it; the result and its report
    publication        publishes the head as a model of the server
    run                `fit`
    command            `clipserve fit`

Needs `pip install 'clipserve[evaluation]'`, and `[export]` to publish. Their packages are imported when they are used.
"""

from clipserve.fitting.fitted import Fitted
from clipserve.fitting.head import Head
from clipserve.fitting.run import fit

__all__ = ["Fitted", "Head", "fit"]
