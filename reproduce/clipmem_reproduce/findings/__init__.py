"""The findings by name, in the order in which they are shown; one file each."""

from collections.abc import Mapping

from clipmem_reproduce.finding import Finding
from clipmem_reproduce.findings.captions import Captions
from clipmem_reproduce.findings.data_size import DataSize
from clipmem_reproduce.findings.encoders import Encoders
from clipmem_reproduce.findings.layers import Layers
from clipmem_reproduce.findings.memorized import Memorized
from clipmem_reproduce.findings.model_size import ModelSize
from clipmem_reproduce.findings.one_pass import OnePass
from clipmem_reproduce.findings.paradigms import Paradigms
from clipmem_reproduce.findings.planted import Planted
from clipmem_reproduce.findings.redundancy import Redundancy
from clipmem_reproduce.findings.removal import Removal
from clipmem_reproduce.findings.roles import Roles
from clipmem_reproduce.findings.text_noise import TextNoise
from clipmem_reproduce.findings.tradeoff import Tradeoff

_ORDER: tuple[type[Finding], ...] = (
    *(Roles, Memorized, Planted, Redundancy, Layers, Encoders, Captions),
    *(TextNoise, Removal, Tradeoff, Paradigms, ModelSize, OnePass, DataSize),
)
FINDINGS: Mapping[str, type[Finding]] = {finding.name: finding for finding in _ORDER}
