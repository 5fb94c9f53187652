"""The documents of a run that reports read: `summary.json`, as numbers with intervals and verdicts, and its audit."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from clipmem.base.errors import InputError, shorten

FORMAT = 2
FILE = "summary.json"
AUDIT_FORMAT = 1
AUDIT_FILE = "audit/audit.json"
Number = float | int  # of a JSON file: 1.0 may have been written as 1


class Entry(BaseModel):
    """A part of a document; fields that a newer or other package's study adds are kept, as attributes too."""

    model_config = ConfigDict(extra="allow", strict=True)

    def document(self) -> dict[str, object]:
        """Return the document to write, without fields that were not measured."""
        return self.model_dump(exclude_unset=True)


Kind = TypeVar("Kind", bound=Entry)


def read_entry(kind: type[Kind], document: Mapping[str, object], subject: str) -> Kind:
    """Return a document as its type.

    Raises:
        InputError: A field is missing or has another type.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        got = f"{field} = {shorten(first['input'], 40)}" if first["type"] != "missing" else f"no {field}"
        hint = "Run the study again in this folder: finished stages are not repeated."
        raise InputError(subject, got=got, expected=first["msg"], hint=hint) from error


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
    over: str = ""
    stderr: Number | None = None
    margin: Number
    verdict: Literal["negligible", "inconclusive", "worse", "better"]
    roles: Mapping[str, Interval]


class NoiseFloor(Entry):
    """How far from 0 the score of a held-out pair is by chance: `center` ± `half_width` at a level of confidence."""

    center: Number
    half_width: Number
    confidence: Number


class Correlation(Entry):
    """A rank correlation with its interval."""

    spearman: Number | None
    low: Number | None
    high: Number | None


class Stability(Correlation):
    """Rank correlation and shared top pairs of two seeds, or of two `halves` of the models."""

    top10_overlap: Number | None = None
    top1_overlap: Number | None = None
    halves: list[int] = []
    unscored: int = 0


class Auroc(Entry):
    """An AUROC with its interval."""

    auroc: Number
    low: Number | None
    high: Number | None


class Planted(Auroc):
    """How well the score, and low alignment alone, rank `n` mismatched pairs before the `rest`."""

    n: int
    rest: int
    mean_planted: Number
    mean_rest: Number
    precision_at_n: Number
    roc: Mapping[Literal["fpr", "tpr"], list[Number]]
    reference_alignment_auroc: Auroc


class Wordings(Entry):
    """The means over all captions up to `count`."""

    count: int
    roles: Mapping[str, Role]
    half_difference: Interval | None


class LearnedRole(Entry):
    """What other pairs taught about the pairs of a role, and what only seeing them taught."""

    n: int
    a_base: Interval
    learned: Interval
    clipmem: Interval


class Learned(Entry):
    """Learned against memorized, by role, with the rank correlation over candidates."""

    roles: Mapping[str, LearnedRole]
    spearman: Correlation


class Agreement(Entry):
    """The rank correlation with the ground truth that is expected of an estimator."""

    value: Number
    low: Number
    high: Number


class Estimate(Entry):
    """How scores were estimated without a reference model, and the agreement expected of each estimator."""

    estimator: str
    shadow_models: int
    proxy: str | None = None
    cost: Number
    calibrated: bool
    agreement: Mapping[str, Agreement | None]


class Metric(Interval):
    """A metric; `change` is its difference from the base model."""

    change: Interval | None = None


class Retrieval(Entry):
    """Retrieval among `n` held-out pairs: what chance gives, and metrics by model, which are further fields."""

    n: int
    chance: Mapping[str, Number | None]


class Probe(Entry):
    """What a linear probe is compared with."""

    commonest_class_acc1: Number | None = None


class Utility(Entry):
    """Metrics by model and name: on held-out pairs (`utility`), other data (`retained`), or of `clipmem evaluate`."""

    metrics: Mapping[str, Mapping[str, Metric]]
    templates: list[str]
    chance: Mapping[str, Number | None]
    n: Mapping[str, int | None]
    words: Mapping[str, str] = {}  # names of other packages' metrics
    commonest_class_acc1: Number | None = None
    probe: Probe | None = None


class Records(Entry):
    """Records of the data: `used` as pairs, and those with problems, by reason."""

    used: int
    problems: int
    reasons: Mapping[str, int]


class ScoreSummary(Entry):
    """The part of `summary.json` that comes from scores alone."""

    seeds: list[int]
    half_difference: Interval | None = None
    centered: Centered | None = None
    roles: Mapping[str, Role]
    tests: list[Entry] = []  # see `stats.comparisons.GroupComparison`, with roles a and b, and p_holm of each p
    paired: Entry | None = None  # see `stats.comparisons.PairedTest`
    noise_floor: NoiseFloor | None = None
    seed_noise: Entry | None = None  # see `stats.intervals.SeedNoise`
    stability: Stability | None = None
    planted: Planted | None = None


class Summary(ScoreSummary):
    """The content of `summary.json`; what a study did not measure is None."""

    format: int
    protocol: str
    alignment: str = "clip"
    weight: Number = 1.0
    confidence: Number = 0.95
    base: str | None = None
    normalizer: Number = float("nan")
    captions: Mapping[str, int] | None = None
    wordings: Wordings | None = None
    regime: Entry | None = None  # see `data.inspection.regime_of`
    learned: Learned | None = None
    retrieval: Retrieval | None = None
    estimate: Estimate | None = None
    utility: Utility | None = None
    retained: Utility | None = None
    dejavu: Mapping[str, Any] | None = None
    words: Mapping[str, Any] = {}
    measure: Mapping[str, Any] = {}
    records: Records | None = None
    seconds: Mapping[str, Number] = {}


class Rate(Entry):
    """An AUC or a true positive rate, with its interval."""

    mean: Number
    low: Number | None
    high: Number | None


class Attack(Entry):
    """How well an attack tells members: the AUC, and true positive rates at 0.1% and 1% false positives."""

    auc: Rate
    tpr: list[Rate]
    above: bool | None = None  # whether the AUC is above .5 at a level divided among the attacks; unknown before


class Offline(Entry):
    """Attacks whose references never trained on the pair, by their number: `references` and `attacks` go together."""

    references: list[int]
    attacks: Mapping[str, list[Attack]]


class Epsilon(Entry):
    """A lower `bound` of ε, from `guesses` per model of which so many were `correct`; without one, the `reason`."""

    attack: str
    couples: int
    bound: Number | None
    reason: Literal["", "few", "draw"]
    guesses: int = 0
    correct: list[int] = []


class Risk(Entry):
    """The share of an attack's advantage that the `pairs` most exposed pairs have; None if unmeasured."""

    attack: str
    pairs: int
    share: Number | None


class Audit(Entry):
    """The content of `audit/audit.json`: attacks on the `models` of a run, each tried on `pairs` pairs."""

    format: int
    models: int
    pairs: int
    seen: list[int]
    nonmembers: int
    confidence: Number
    attacks: Mapping[str, Attack]
    offline: Offline | None = None
    epsilon: Epsilon | None = None
    risk: Risk
    roc: Mapping[str, list[Number]]
