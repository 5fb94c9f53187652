"""The words that depend on how a study was made: on its protocol, and on the alignment its score compares.

`wording`, the page, the figures and the terminal take every such word from here. A protocol that this version does not
know reads as four-way, and an alignment that it does not know is called by its own name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Words:
    """What a protocol calls things. A `{n}` in a text is the number of seeds of the summary.

    Attributes:
        memorized: Headline when the candidates score above 0.
        candidates: Who the candidates are, after "The 60 candidates, ".
        external: Who the control pairs are, after "The 20 external pairs, ".
        meaning: What the score means, for alignment between picture and caption.
        compared: What is compared with what, for any other alignment.
        noisy: By number of seeds, why single scores are noisy; 0 holds for all other numbers.
        intervals: By number of seeds, what the intervals of means say; 0 holds for all other numbers.
        duplicates: What near-duplicates do.
        trained_by: Role → which models trained on it.
        expected: Role → the score to expect.
        distributions: Heading of the figure of roles.
        ranked: The pairs that are ranked, after "From 60 ".
        errors: What the errors of scores are over.
        no_error: Why a score has no error, short.
        reference: The models that the rival detector reads, after "low alignment ".
        reference_short: The same for a legend and a table.
        about_f: What the score says of wrong captions.
        retrieval: What retrieval shows, after "... one of 200 pairs ".
        columns: Key of `summary.retrieval` → heading.
        curves: How the lines of the training figure are to be read.
        below: Headline when the candidates score below 0.
        caveat: What must be said beside every result; "" for nothing.
        captions: What the captions shown are, after "the captions that the pair was ".
        planted: What was done to planted pairs, after "4 candidates were ".
        not_planted: And to the other candidates, after "16 ".
        floor: Name of the noise floor, what is compared, and what it needs where there is none.
        no_logs: What to say where there are no training logs.
    """

    memorized: str
    candidates: str
    external: str
    meaning: str
    compared: str
    noisy: Mapping[int, str]
    intervals: Mapping[int, str]
    duplicates: str
    trained_by: Mapping[str, str]
    expected: Mapping[str, str]
    distributions: str
    ranked: str
    errors: str
    no_error: str
    reference: str
    reference_short: tuple[str, str]
    about_f: str
    retrieval: str
    columns: Mapping[str, str]
    curves: str
    below: str = "The candidates score below 0: check this run"
    caveat: str = ""
    captions: str = "trained with"
    planted: str = "trained with another pair's captions"
    not_planted: str = "with their own"
    floor: tuple[str, str, str] = ("seed noise, mean size", "f against f of another seed", "needs two seeds")
    no_logs: str = "This folder has no training logs."


_SEEDS = {
    1: "This run has one seed, so no score has an error",
    2: "This run has two seeds, so the errors are rough themselves",
    0: "This run has {n} seeds",
}
# what a two-way bootstrap over pairs and seeds can and cannot say
_OVER_SEEDS = {
    1: "Intervals of means come from resampling pairs; with one seed they say nothing about another training run.",
    0: "Intervals of means come from resampling pairs and seeds; with fewer than about five seeds they are "
    "too narrow for what another training run would give.",
}
FOUR_WAY = Words(
    memorized="The model memorized pairs it was trained on",
    candidates="which the target model f trained on and the reference model g did not",
    external="which neither model trained on",
    meaning="How much better f aligns a picture with its caption than g does, each measured against "
    "pairs that neither trained on. 0: training on the pair changed nothing. Higher: f aligns it "
    "only because it saw exactly this pair.",
    compared="f with g",
    noisy=_SEEDS,
    intervals=_OVER_SEEDS,
    duplicates="Near-duplicates of a candidate among what g saw make its score too low.",
    trained_by={"candidate": "f only", "independent": "g only", "shared": "f and g", "external": "neither"},
    expected={
        "candidate": "above 0: f trained on them, g did not",
        "independent": "below 0, the candidates' mirror: g trained on them, f did not",
        "shared": "about 0: both trained on them",
        "external": "about 0: neither trained on them; the control and the bank",
    },
    distributions="Scores in the four roles",
    ranked="candidates",
    errors="seeds",
    no_error="one seed",
    reference="under g alone",
    reference_short=(" under g", "g"),
    about_f="CLIPMem says what f did with them",
    retrieval="that it did not train on. f and g should be alike: they differ in a few training pairs only. A model "
    "near chance has learned little beyond its training pairs, and its scores say little.",
    columns={"f": "f", "g": "g"},
    curves="Solid is f, dashed is g. The two should lie on each other; where they part, f and g differ in more than "
    "their pairs.",
)
SUBSAMPLE = Words(
    memorized="The models memorized pairs they were trained on",
    candidates="each of which some of the models had in training and the others had not",
    external="which no model trained on, scored as if a random part of the models had had them",
    meaning="How much better the models that had a pair align its picture with its caption than the models that had "
    "not, each measured against pairs that no model trained on. 0: having the pair changed nothing. Higher: "
    "the pair is aligned only by models that had exactly this pair.",
    compared="the models that had a pair with those that had not",
    noisy={0: "This run has {n} models, and a pair's score rests on the few that had it and the few that had not"},
    intervals={
        0: "Intervals of means come from resampling models and pairs. The models are few beside the pairs, and the "
        "models that had one pair had many others as well: that is the noise in every single score."
    },
    duplicates="Near-duplicates that were found are in or out together, and score as one; those that were not found "
    "make a score too low: models without the pair often had its duplicate.",
    trained_by={"candidate": "a random part of the models", "external": "no model"},
    expected={
        "candidate": "above 0: models that had a pair align it better than models that had not",
        "external": "about 0: no model had them, and a random part of the models is counted as if it had; the control "
        "and the bank",
    },
    distributions="Scores of the pairs and of the control",
    ranked="scored pairs",
    errors="models",
    no_error="too few models",
    reference="under the models without the pair",
    reference_short=("\nwithout the pair", "without the pair"),
    about_f="CLIPMem says what having them changed",
    retrieval="that no model trained on, averaged over the models (at most eight of them). Models near chance have "
    "learned little beyond their training pairs, and their scores say little.",
    columns={"f": "the models", "r": "the models"},
    curves="Each line is one model, trained on its own random part of the pairs. They should lie together; one that "
    "strays was trained less well, and moves the scores of the pairs that it had.",
)
LEAVE_ONE_OUT = Words(
    memorized="The model memorized pairs it was trained on",
    candidates="each of which f trained on and one retrained model did not",
    external="which neither f nor a retrained model trained on",
    meaning="How much better f aligns a picture with its caption than a model does that was trained again without this "
    "one pair, each measured against pairs that no model trained on. 0: leaving the pair out changed nothing. "
    "Higher: the pair is aligned only by a model that had exactly this pair.",
    compared="f with a model that was trained again without the pair",
    noisy=_SEEDS,
    intervals=_OVER_SEEDS,
    duplicates="Two trainings that differ in one pair part a little everywhere, so read a score beside those of the "
    "control. Near-duplicates of a pair, which stay in training when it is left out, make its score too low.",
    trained_by={"candidate": "f, and all retrained models but one", "external": "no model"},
    expected={
        "candidate": "above 0: f trained on the pair, the model retrained without it did not",
        "external": "about 0: no model trained on them; f against one of the retrained models, drawn for each pair, so "
        "they scatter as a pair left out does by chance; the control and the bank",
    },
    distributions="Scores of the pairs left out and of the control",
    ranked="pairs left out",
    errors="seeds",
    no_error="one seed",
    reference="under the model without the pair",
    reference_short=("\nwithout the pair", "without the pair"),
    about_f="CLIPMem says what f did with them",
    retrieval="that it did not train on. f and the retrained models (at most eight of them, averaged) should be "
    "alike: they differ in one training pair. A model near chance has learned little beyond its training pairs, "
    "and its scores say little.",
    columns={"f": "f", "g": "retrained"},
    curves="Solid is f, dashed are the models retrained without one pair. They start alike and see the same batches, "
    "so they should lie on each other.",
)
GIVEN = Words(
    memorized="The target aligns the candidates better than the reference does",
    below="The candidates score below 0: the reference aligns them better than the target does",
    caveat="Target and reference were given. That they differ in their training pairs only is the user's word and "
    "cannot be checked: every other difference between them counts as memorization here.",
    candidates="which the target trained on and the reference did not, as the user says",
    external="which no model trained on, as the user says",
    meaning="How much better the target aligns a picture with its caption than the reference does, each measured "
    "against the external pairs. If the models differ in their training pairs only, 0 says that training on the pair "
    "changed nothing, and more that the target aligns it only because it saw exactly this pair. Of any two models it "
    "says no more than how much better one aligns the pair.",
    compared="target with reference",
    noisy={
        1: "This run has one target and one reference, so no score has an error",
        2: "This run has two targets and two references, so the errors are rough themselves",
        0: "This run has {n} targets and {n} references",
    },
    intervals={
        1: "Intervals of means come from resampling pairs; with one target and one reference they say nothing about "
        "other models.",
        0: "Intervals of means come from resampling pairs and models; with fewer than about five of each they are too "
        "narrow for what other models would give.",
    },
    duplicates="Whatever else differs between target and reference (architecture, other data, length of training) is "
    "in the score, and the external pairs show how much of it only as far as they are like the candidates. The bank "
    "must be unseen: what a model trained on there, and near-duplicates of candidates in the reference's data, bend "
    "the scores.",
    trained_by={
        "candidate": "target only",
        "independent": "reference only",
        "shared": "both",
        "external": "neither",
    },
    expected={
        "candidate": "above 0: the target trained on them, the reference did not",
        "independent": "below 0: the reference trained on them, the target did not",
        "shared": "about 0: both trained on them; another value is another difference between the models",
        "external": "about 0: neither trained on them; another value is another difference between the models; the "
        "control and the bank",
    },
    distributions="Scores by role",
    ranked="candidates",
    errors="pairs of models",
    no_error="one pair of models",
    reference="under the reference alone",
    reference_short=("\nunder the reference", "the reference"),
    about_f="CLIPMem says what the target did with them",
    retrieval="that no model trained on, as the user says. Where target and reference differ here, they differ in more "
    "than a few training pairs. A model near chance aligns nothing but its training pairs, and its scores say little.",
    columns={"f": "target", "g": "reference"},
    curves="",
    captions="scored with",
    planted="called planted in the roles file, which says that their captions are wrong",
    not_planted="were not",
    floor=("noise between targets, mean size", "one target against another", "needs two targets"),
    no_logs="Nothing was trained in this run: the models were given.",
)
_PROTOCOLS = {"four-way": FOUR_WAY, "subsample": SUBSAMPLE, "leave-one-out": LEAVE_ONE_OUT, "given": GIVEN}
CURVE_NAMES = {
    "f": "f, the target",
    "g": "g, the reference",
    "without": "retrained without one pair",
    "r": "a model on its part of the pairs",
    "other": "another model",
}


@dataclass(frozen=True)
class Measure:
    """What an alignment and its score are called.

    Attributes:
        score: The score's name.
        rival: The simplest detector of planted pairs, before "under g alone".
        meaning: What the score measures; "" for alignment between picture and caption. `{compared}` is the protocol's.
        banked: Whether the bank, and so its weight, takes part.
        bound: The largest possible size of a score in which no bank takes part.
        axis: What one model gives a pair, for the axis of a figure.
    """

    score: str
    rival: str
    meaning: str = ""
    banked: bool = True
    bound: str = "2"
    axis: str = "alignment"


_STILL = (
    "How much stiller a model that trained on the pair holds {what} than one that did not: {compared}, by the mean "
    "distance between embeddings of {views}. It looks at one tower alone. 0: training on the pair changed "
    "nothing. Higher: the pair is held stiller because it was trained on."
)
_MEASURES = {
    "clip": Measure("CLIPMem", "low alignment"),
    "cmc": Measure("CMC memorization", "low alignment"),
    "sslmem-image": Measure(
        "SSLMem, image tower",
        "large view distance",
        _STILL.replace("{what}", "its picture").replace("{views}", "crops of the picture"),
        banked=False,
        axis="minus the mean distance",
    ),
    "sslmem-text": Measure(
        "SSLMem, text tower",
        "large caption distance",
        _STILL.replace("{what}", "its captions").replace("{views}", "the captions"),
        banked=False,
        axis="minus the mean distance",
    ),
    "confidence": Measure(
        "Confidence memorization",
        "low class probability",
        "How much more probability a model that trained on the picture gives its class than one that did not: "
        "{compared}, by the class head on the image tower. It knows labels and no captions, so it cannot see a wrong "
        "caption. 0: training on the picture changed nothing. Higher: its class is known because it was trained on.",
        banked=False,
        bound="1",
        axis="class probability",
    ),
}


def words_of(summary: Mapping[str, Any]) -> Words:
    """Return the words of the summary's protocol."""
    return _PROTOCOLS.get(summary.get("protocol", ""), FOUR_WAY)


def measure_of(summary: Mapping[str, Any]) -> Measure:
    """Return the names of the summary's alignment; a summary that names none was made with "clip".

    Example:
        >>> measure_of({"alignment": "cmc"}).score, measure_of({}).score
        ('CMC memorization', 'CLIPMem')
    """
    name = summary.get("alignment", "clip")
    return _MEASURES.get(name, Measure(str(name), "low alignment"))


def curve_group(side: str) -> str:
    """Return the kind of model that a folder `models/SIDE` holds, a key of `CURVE_NAMES`.

    Example:
        >>> curve_group("without-0ccec6f8d910"), curve_group("g")
        ('without', 'g')
    """
    side = "without" if side.startswith("without-") else side
    return side if side in CURVE_NAMES else "other"
