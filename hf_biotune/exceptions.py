"""The errors that `hf_biotune` raises for what a user can get wrong.

All derive from [`BioTuneError`] and from `ValueError`, so that `except ValueError` works as well.
"""


class BioTuneError(ValueError):
    """Something that a user gave is wrong; the message names the value, the rule and the remedy."""


class PartitionError(BioTuneError):
    """A model can't be divided into blocks as asked."""


class GenotypeError(BioTuneError):
    """Genes out of range, of the wrong number, or selecting no block."""


class ConfigError(BioTuneError):
    """A configuration holds a value that can't be used."""


class CheckpointError(BioTuneError):
    """An adapter checkpoint can't be read, or doesn't fit the model."""


class DataError(BioTuneError):
    """A data set can't be read, or is too small for what is asked."""


class StudyMismatchError(BioTuneError):
    """A storage or output directory holds the study of another model, data set or search."""


class StorageError(BioTuneError):
    """What holds a study, or weights, can't be written to or read any more."""


class TrainingError(BioTuneError):
    """Too many trainings of a search fail."""
