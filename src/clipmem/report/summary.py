"""The type of `summary.json`: what a run says about its scores, as numbers with intervals and verdicts."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clipmem.base.errors import InputError, shorten

FORMAT = 2
FILE = "summary.json"
Number = float | int  # of a JSON file: 1.0 may have been written as 1


class Entry(BaseModel, Mapping[str, Any]):
    """A part of a summary: fields by attribute, or by key as in the file, where a key is absent if it was not written.

    Fields that a newer or other package's study adds are kept.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    def __getitem__(self, key: str) -> Any:
        if key not in self.model_fields_set:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:  # pyright: ignore[reportIncompatibleMethodOverride]  of a mapping, not a model
        return (key for key in {**self.__dict__, **(self.model_extra or {})} if key in self.model_fields_set)

    def __len__(self) -> int:
        return len(self.model_fields_set)

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == other

    __hash__ = None  # pyright: ignore[reportAssignmentType]  as a mapping


class Interval(Entry):
    """A mean with its interval; None if undefined. `over`: what the interval is over."""

    mean: Number | None
    low: Number | None
    high: Number | None
    over: str = ""


class Role(Interval):
    """The scores of a role."""

    n: int
    sd: Number | None = None
    median: Number | None = None


class Centered(Entry):
    """Where the external pairs stand, and the means of roles after subtracting it."""

    shift: Number
    low: Number | None
    high: Number | None
    margin: Number
    verdict: Literal["negligible", "inconclusive", "worse", "better"]
    roles: Mapping[str, Interval]


class NoiseFloor(Entry):
    """How far from 0 the score of a held-out pair is by chance: `center` ± `half_width` at a level of confidence."""

    center: Number
    half_width: Number
    confidence: Number


class Stability(Entry):
    """Rank correlation and shared top pairs of two seeds, or of two halves of the models."""

    spearman: Number | None
    low: Number | None
    high: Number | None
    top10_overlap: Number | None = None
    top1_overlap: Number | None = None


class Auroc(Entry):
    """An AUROC with its interval."""

    auroc: Number
    low: Number | None
    high: Number | None


class Planted(Auroc):
    """How well the score, and low alignment alone, rank planted pairs first."""

    n: int
    roc: Mapping[str, list[Number]]
    reference_alignment_auroc: Auroc


class Wordings(Entry):
    """The means over all captions up to `count`."""

    count: int
    roles: Mapping[str, Role]
    half_difference: Interval | None


class LearnedRole(Entry):
    """What other pairs taught about the pairs of a role, and what only seeing them taught."""

    n: int
    learned: Interval
    clipmem: Interval


class Learned(Entry):
    """Learned against memorized, by role, with the rank correlation over candidates."""

    roles: Mapping[str, LearnedRole]
    spearman: Mapping[str, Number | None]


class Estimate(Entry):
    """How scores were estimated without a reference model, and the agreement expected of each estimator."""

    estimator: str
    agreement: Mapping[str, Entry | None]


class Utility(Entry):
    """Metrics by model and name, on held-out pairs (`utility`) or on other data (`retained`)."""

    metrics: Mapping[str, Mapping[str, Entry]]
    templates: list[str]
    chance: Mapping[str, Any]
    n: Entry


class Summary(Entry):
    """The content of `summary.json`; what a study did not measure is None."""

    format: int
    protocol: str
    seeds: list[int]
    roles: Mapping[str, Role]
    alignment: str = "clip"
    weight: Number = 1.0
    confidence: Number = 0.95
    base: str | None = None
    normalizer: Number = float("nan")
    half_difference: Interval | None = None
    centered: Centered | None = None
    tests: list[Entry] = []
    paired: Entry | None = None
    noise_floor: NoiseFloor | None = None
    seed_noise: Entry | None = None
    stability: Stability | None = None
    planted: Planted | None = None
    captions: Mapping[str, int] | None = None
    wordings: Wordings | None = None
    regime: Entry | None = None
    learned: Learned | None = None
    retrieval: Mapping[str, Any] = {}
    estimate: Estimate | None = None
    utility: Utility | None = None
    retained: Utility | None = None
    dejavu: Entry | None = None
    words: Mapping[str, Any] = {}
    measure: Mapping[str, Any] = {}
    records: Entry | None = None
    seconds: Mapping[str, Number] = {}


def summary_from(document: Mapping[str, Any], what: str) -> Summary:
    """Return the typed summary of a document of `FORMAT`.

    Raises:
        InputError: A field is missing or has another type.
    """
    try:
        return Summary.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        got = f"{field} = {shorten(first['input'], 40)}" if first["type"] != "missing" else f"no {field}"
        hint = "Run the study again in this folder: finished stages are not repeated."
        raise InputError(what, got=got, expected=first["msg"], hint=hint) from error
