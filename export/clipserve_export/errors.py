"""What can go wrong in an export, for the person who asked for it.

ExportError
├── WeightsError      the weights cannot be had, read or fitted into the network
├── LabelsError       the label file does not fit the weights
├── ParityError       the exported file does not compute what the network computes
└── RepositoryError   the model repository is not what the specs say
"""


class ExportError(Exception):
    """Nothing was published. The message says what came, what is allowed and what to do next."""


class WeightsError(ExportError):
    """The weights cannot be had, read or fitted into the network."""


class LabelsError(ExportError):
    """The label file does not fit the weights."""


class ParityError(ExportError):
    """The exported file does not compute what the network computes."""


class RepositoryError(ExportError):
    """The model repository is not what the specs say."""
