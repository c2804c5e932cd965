"""Several fine-tunings of one base model, served as one."""

from .ensemble import BioTuneEnsemble
from .members import EnsembleMember

__all__ = ["BioTuneEnsemble", "EnsembleMember"]
