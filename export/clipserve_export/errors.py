"""The errors of an export, with messages for the person who runs it.

ExportError
├── WeightsError      the weights cannot be fetched, read or loaded into the network
├── LabelsError       the label file does not fit the weights
├── ContractError     the contract cannot be read, or contradicts the network
├── FormatError       the exporter of the format cannot write the network
├── PrecisionError    the format cannot hold this precision
├── ParityError       the exported file does not compute what the network computes
├── ServingError      the serving options contradict each other, the model or the format
├── VersionError      the version does not exist, or does not fit the others
└── RepositoryError   the model repository differs from the specs, or a server cannot load it
"""


class ExportError(Exception):
    """Nothing was published. The message says what came, what is allowed and what to do next."""


class WeightsError(ExportError):
    """The weights cannot be fetched, read or loaded into the network."""


class LabelsError(ExportError):
    """The label file does not fit the weights."""


class ContractError(ExportError):
    """The contract cannot be read, or contradicts the network."""


class FormatError(ExportError):
    """The exporter of the format cannot write the network."""


class PrecisionError(ExportError):
    """The format cannot hold this precision."""


class ParityError(ExportError):
    """The exported file does not compute what the network computes."""


class ServingError(ExportError):
    """The serving options contradict each other, the model or the format."""


class VersionError(ExportError):
    """The version does not exist, or does not fit the others."""


class RepositoryError(ExportError):
    """The model repository differs from the specs, or a server cannot load it."""
