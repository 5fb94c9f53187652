"""Store reproductions, and write what RESULTS.md, docs/findings.md and ../mitigate/RESULTS.md show of them.

    clipmem reproduce --regime redundant --scale laptop --out reproduced     # and the other regimes
    python experiments/reproduce/record.py reproduced                        # stores it, then writes the page
    python experiments/reproduce/record.py                                  # writes the page again, without any run
    python experiments/reproduce/record.py --judge                          # judges it again by the present rules
    python experiments/reproduce/record.py --hours                          # prints how long the planned runs took
    python experiments/reproduce/record.py --longer "none=longer/none"      # stores a longer run of redundant
    python experiments/reproduce/record.py --again "none=again/none"        # or one of its removals with other seeds

`unique/`, `redundant/` and `long-tail/`, and those under `planned/` and `repeated/`, scales, each hold `findings.json`
of `clipmem reproduce`, `base.toml` (the recipe of the base study), `runs.parquet` (settings of each run, and its
measurements by seed) and `machine.json`. To repeat a run: `clipmem run redundant/base.toml --set SETTING... --out DIR`,
a run with a parent after it.
"""

import html
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import t, ttest_1samp

from clipmem import dump_recipe, load_recipe
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import as_settings, differences
from clipmem.functional import Claim
from clipmem.report.figures import standalone
from clipmem.report.formats import duration, interval, level, signed
from clipmem.report.run import is_finished
from clipmem.report.templating import environment
from clipmem_reproduce.effects import MEASURES, OF_CANDIDATES, Effect, Results
from clipmem_reproduce.finding import Context, holds, judged_effects
from clipmem_reproduce.findings import FINDINGS
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.page import drawable, finding_figure
from clipmem_reproduce.reproduction import INDEX, RUNS, base_recipe
from clipmem_reproduce.scales import REGIMES, SCALES
from clipmem_reproduce.spec import RunSpec

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
GLANCE = DOCS / "findings.md"
PAGE, CHOICE, IMAGES = HERE / "RESULTS.md", HERE.parent / "mitigate" / "RESULTS.md", DOCS / "images"
LONGER = "redundant"
WIDTH = 720  # of a page of the docs, in CSS pixels
_DATA = {  # tables that are not shipped
    "long-tail": " --set data.path=icons.parquet",
    "photographs": " --set data.path=photographs.parquet",
    "titles": " --set data.path=titles.parquet",
    "alt-texts": " --set data.path=manual.parquet",
}
_CHOSEN = {
    "clipmem": "CLIPMem, first caption",
    "clipmem_wordings": "CLIPMem, all captions",
    "retrieval_recall@5": "recall@5, first caption",
    "retrieval_wordings_recall@5": "recall@5, all captions",
}
_BLOCK = re.compile(r"(<!-- finding: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ROLES = ("candidate", "independent", "shared", "external")
_OF_SEED = {"split.seed", "train.seeds"}
_PACKAGES = ("clipmem", "torch", "open_clip_torch", "numpy", "scipy", "scikit-learn")
_NOT_KEPT = ("median_rank", "mean_per_class_recall", "recall@1", "recall@10")

Document = dict[str, Any]


def keep(folder: Path) -> Path:
    """Store verdicts, tables and versions of a reproduction in the repository, beside findings stored before."""
    document = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    place = place_of(document)
    place.mkdir(parents=True, exist_ok=True)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    folders = {key: RunFolder(folder / RUNS / key) for key in index}
    folders = {key: one for key, one in folders.items() if (one.path / "recipe.toml").is_file()}
    made = [key for key, one in folders.items() if is_finished(one, one.recipe().protocol)]
    rows = [row for key in made for row in measured(key, index[key], Measured(folder / RUNS / key))]
    table, file = pl.DataFrame(rows), place / "findings.json"
    if file.is_file():
        document = merged(json.loads(file.read_text(encoding="utf-8")), document)
        earlier = pl.read_parquet(place / "runs.parquet")
        # another version of clipmem may have given the same run another name
        again = pl.col("settings").is_in(table["settings"].unique().implode())
        table = pl.concat([earlier.filter(~again), table])
    file.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
    table.write_parquet(place / "runs.parquet")
    base = base_recipe(document["scale"], document["regime"], len(document["seeds"]))
    (place / "base.toml").write_text(dump_recipe(base), encoding="utf-8")
    manifest = RunFolder(folder / RUNS / made[0]).read_json("manifest.json")
    machine = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "processor": _processor(),
        **{key: manifest[key] for key in ("device", "precision", "threads", "workers")},
    }
    (place / "machine.json").write_text(json.dumps(machine, indent=1) + "\n", encoding="utf-8")
    return place


def place_of(document: Document) -> Path:
    """Return the folder in which a document is stored."""
    return HERE / (document["scale"] if document.get("crossed") else "") / document["regime"]


def add(kind: str, name: str, folder: Path) -> None:
    """Store the measurements of a run of `redundant` that no verdict uses; a longer one is named as in `tradeoff`."""
    place, run = HERE / LONGER, RunFolder(folder)
    base = load_recipe((place / "base.toml").read_text(encoding="utf-8"))
    settings = {key: value for key, _, value in differences(base, run.recipe())}
    entry = {"name": f"{kind}: {name}, {run.recipe().train.epochs} epochs", "settings": settings}
    table, file = pl.DataFrame(measured(folder.name, entry, Measured(folder))), place / "runs.parquet"
    earlier = pl.read_parquet(file).filter(pl.col("name") != entry["name"])
    pl.concat([earlier, table]).write_parquet(file)


def merged(earlier: Document, document: Document) -> Document:
    """Return a document with the findings of both; those of the second replace those of the first."""
    for key in ("regime", "scale", "utility", "confidence", "primaries"):
        if earlier[key] != document[key]:
            sys.exit(
                f"{key}: {document[key]!r}, expected {earlier[key]!r} as stored; remove the stored findings first."
            )
    new = {one["finding"] for one in document["findings"]}
    findings = [*document["findings"], *(one for one in earlier["findings"] if one["finding"] not in new)]
    rows = [*document["rows"], *(row for row in earlier["rows"] if row["finding"] not in new)]
    return {**document, "findings": sorted(findings, key=_place), "rows": sorted(rows, key=_place)} | {
        "runs": earlier["runs"] | document["runs"],
        **{key: sorted({*earlier[key], *document[key]}) for key in {"deviations"} & document.keys()},
    }


def _place(entry: Document) -> int:
    return list(FINDINGS).index(entry["finding"])


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.processor()


def measured(key: str, entry: dict[str, Any], run: Measured) -> list[dict[str, object]]:
    """Return the measurements of a run, one row per measure and seed."""
    values = {f"clipmem {role}": run.memorization(run.uids(role)) for role in _ROLES}
    roles = run.uids("candidate"), run.uids("independent")
    values |= {measure: run.half_difference(*roles, measure) for measure in MEASURES}
    if entry["settings"].keys() <= _OF_SEED:  # the base run: its encoders are swapped
        values |= {name: list(measure(run)) for name, measure in OF_CANDIDATES.items()}
    values["clipmem planted"] = run.memorization(run.planted & run.uids("candidate"))
    values |= {name: own for name, own in run.utility.items() if not name.endswith(_NOT_KEPT)}
    folder = RunFolder(run.run.path)
    for side in sorted({model.parent.name for model in folder.path.glob("models/*/seed-*")}):
        markers = [folder.read_json(f"stages/train-{side}-seed-{seed}.json") for seed in run.seeds]
        values[f"pairs/s of {side}"] = [float(marker["pairs_per_second"]) for marker in markers]
    settings = " ".join(as_settings(entry["settings"]))
    return [
        {"run": key, "name": entry["name"], "settings": settings, "measure": measure, "seed": seed, "value": value}
        for measure, own in values.items()
        for seed, value in zip(run.seeds, own, strict=False)
    ]


class StoredResults(Results):
    """The results of a regime from `runs.parquet` in a folder."""

    def __init__(self, place: Path, confidence: float, primaries: int, context: Context) -> None:
        runs = pl.read_parquet(place / "runs.parquet").sort("seed")
        runs = runs.filter(~pl.col("name").str.contains("^(longer|again): "))
        rows = runs.group_by("settings", "measure", maintain_order=True).agg("value").rows()
        self._values = {(_key(settings), metric): values for settings, metric, values in rows}
        opened: Any = Measured  # of a folder; none is opened here
        super().__init__(opened, confidence, primaries, context.replicates)
        self._stands_for = context.replicates

    def values(self, spec: RunSpec, metric: str = "clipmem", among: RunSpec | None = None) -> list[float]:
        """Return a measure by seed; the compared runs have the same pairs, but perhaps fewer replicates."""
        replicates = self._stands_for(spec)
        if metric in MEASURES:
            replicates = replicates[: len(self._stands_for(among or spec))]
        names = [" ".join(as_settings(one.recorded)) for one in replicates]
        values = [self._values.get((_key(settings), metric), []) for settings in names]
        return [value for of_run in values for value in of_run] if all(values) else []

    def validation(self, spec: RunSpec, metric: str) -> list[float]:
        """Return the values on test pairs: those on validation pairs, which choose the same lengths, are not stored."""
        return self.values(spec, metric)


def _key(settings: str) -> frozenset[tuple[str, str]]:
    """Return settings as they are compared: without order and quotes; of a key that is set twice the last one."""
    parts = re.split(r" (?=[a-z_.]+=)", settings) if settings else []
    pairs = (re.sub(r"[ '\"]", "", part).partition("=") for part in parts)
    return frozenset({key: value for key, _, value in pairs}.items())


# findings whose effects follow from the stored measurements, planned or not, or whose primary effect from effects shown
_MEASURED = {
    True: ("captions", "encoders", "text-noise", "model-size"),  # the others need scores of pairs, which are not stored
    False: ("captions", "text-noise", "removal", "tradeoff", "model-size", "one-pass"),
}
_SHOWN_DIGITS = 5e-4
_SHOWN = {"memorized": slice(1, 4), "layers": slice(1, 3)}


def judged_again(document: Document) -> Document:
    """Return a stored document with the intervals and verdicts that the present rules give."""
    recipe = load_recipe((place_of(document) / "base.toml").read_text(encoding="utf-8"))
    context = Context(SCALES[document["regime"], document["scale"]], recipe)
    findings = [_judged_again(one, context, document) for one in document["findings"]]
    effects = {(one["finding"], effect["measure"]): effect for one in findings for effect in one["effects"]}
    rows = [
        {
            **row,
            **{
                key: effects[row["finding"], row["measure"]][key]
                for key in row.keys() & Effect.__annotations__.keys() | {"holds"}
            },
        }
        for row in document["rows"]
    ]
    return {**document, "findings": findings, "rows": rows}


def _judged_again(one: Document, context: Context, document: Document) -> Document:
    name, finding = one["finding"], FINDINGS[one["finding"]]()
    looks, effects = context.scale.looks.get(name, 1), [_read(effect) for effect in one["effects"]]
    place, primaries = place_of(document), document["primaries"] * looks
    results = StoredResults(place, document["confidence"], primaries, context)
    if name in _SHOWN and not context.scale.crossed:
        pairs, first = [_sample(effect) for effect in effects[_SHOWN[name]]], effects[0]
        effects[0] = results.weakest(first.measure, pairs, first.claim, primary=True)
    if name in _MEASURED[context.scale.crossed]:
        effects = judged_effects(finding, context, results)
    for before, effect in zip(one["effects"], effects, strict=True):
        same = (effect.measure, effect.seeds) == (before["measure"], before["seeds"])
        if not same or abs(effect.estimate - before["estimate"]) > _SHOWN_DIGITS:
            sys.exit(f"{document['regime']}, {name}, {effect.measure}: {effect.estimate}, stored {before['estimate']}.")
    words = {key: getattr(finding, key) for key in ("title", "claim", "published", "limits")}
    return {
        **one,
        **words,
        "looks": looks,
        "holds": holds(effects),
        "effects": [effect.as_dict() for effect in effects],
    }


def _read(effect: Document) -> Effect:
    own = {key: value for key, value in effect.items() if key != "holds"}
    return Effect(**{**own, "claim": Claim(**effect["claim"])})


def _sample(effect: Effect) -> tuple[list[float], list[float]]:
    """Return values and a base with the mean and the t intervals of an effect, which its sample has at every level."""
    z = np.arange(effect.seeds) - (effect.seeds - 1) / 2
    assert effect.high is not None  # noqa: S101  both are known in what is kept
    assert effect.low is not None  # noqa: S101
    half = (effect.high - effect.low) / 2 / t.ppf((1 + effect.confidence) / 2, effect.seeds - 1)
    return (effect.estimate + z / z.std(ddof=1) * half * effect.seeds**0.5).tolist(), [0.0] * effect.seeds


def stored(scale: str = "") -> dict[str, Document]:
    """Return the stored documents by regime: of a planned scale, or the earlier ones."""
    files = {regime: HERE / scale / regime / "findings.json" for regime in REGIMES}
    return {regime: json.loads(file.read_text(encoding="utf-8")) for regime, file in files.items() if file.is_file()}


def newest() -> dict[str, Document]:
    """Return the documents by regime, in which planned findings take the place of earlier ones.

    Those of a second look take the place of the first, and hold it as `first`.
    """
    earlier, planned, repeated = stored(), stored("planned"), stored("repeated")
    documents: dict[str, Document] = {}
    for regime in (name for name in REGIMES if name in {*earlier, *planned}):
        findings = {one["finding"]: one for one in earlier.get(regime, {}).get("findings", [])}
        findings |= {one["finding"]: {**one, "scale": "planned"} for one in planned.get(regime, {}).get("findings", [])}
        for one in repeated.get(regime, {}).get("findings", []):
            findings[one["finding"]] = {**one, "scale": "repeated", "first": findings[one["finding"]]}
        documents[regime] = {**(earlier.get(regime) or planned[regime])}
        documents[regime]["findings"] = sorted(findings.values(), key=_place)
    return documents


def summary(documents: dict[str, Document]) -> str:
    """Return the table of findings by regime: verdict, primary effect, interval.

    Regimes that only a planned reproduction has test few findings: they share a column.
    """
    titles = {one["finding"]: one["title"] for document in documents.values() for one in document["findings"]}
    found = {(regime, one["finding"]): one for regime, document in documents.items() for one in document["findings"]}
    columns = [regime for regime, document in documents.items() if document["scale"] != "planned"]
    few = [regime for regime in documents if regime not in columns]
    heads = ["finding", *columns, *["other data or models"] * bool(few)]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for name, title in sorted(titles.items(), key=lambda one: list(FINDINGS).index(one[0])):
        cells = [_cell(found.get((regime, name))) for regime in columns]
        others = [f"{regime}: {_cell(found[regime, name])}" for regime in few if (regime, name) in found]
        cells += ["; ".join(others) or "not tested"] * bool(few)
        anchor = re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-"))
        lines.append(f"| [{title}](results/reproduce.md#{anchor}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(document: Document) -> list[Document]:
    """Return the findings of a document, each before its first look if there were two."""
    return [look for one in document["findings"] for look in (one, one.get("first")) if look]


def image_of(finding: Document, regime: str) -> str:
    """Return the file name of a finding's figure."""
    again = "-repeated" * ("first" in finding)
    return f"finding-{regime}-{finding['finding']}{again}.svg"


def _cell(finding: Document | None) -> str:
    if finding is None:
        return "not tested"
    primaries = [effect for effect in finding["effects"] if effect["primary"]]
    if not primaries:
        return "not measured"
    values = [f"{signed(primary['estimate'], entry=primary)} {interval(primary, sign=True)}" for primary in primaries]
    if len(primaries) > 1:
        claims = [re.sub("^CLIPMem of | minus .*|, each .*", "", primary["measure"]) for primary in primaries]
        values = [
            f"{claim} {primary['holds']} {value}"
            for claim, primary, value in zip(claims, primaries, values, strict=True)
        ]
    planned = {"planned": "†", "repeated": "† (second look)"}.get(finding.get("scale", ""), "")
    return f"**{finding['holds']}**{planned} {'; '.join(values)}"


def section(name: str, documents: dict[str, Document]) -> str:
    """Return the section of a finding: claim, and by regime verdict, figure, effects, command."""
    macros: Any = environment(screen=True).get_template("clipmem_reproduce:sentences.jinja").module
    lines: list[str] = []
    for regime, document in documents.items():
        for one in shown(document):
            if one["finding"] != name:
                continue
            words = [f"Claim: {one['claim']}", *(["", f"Limits: {one['limits']}"] if one["limits"] else [])]
            lines += [*([] if lines else words), ""]
            verdict = macros.VERDICTS[one["holds"]]
            looked = str(macros.looked(one)).rstrip()
            first, *more = [effect["measure"] for effect in one["effects"] if effect["primary"]]
            primary = f"Primary effects: {'; '.join((first, *more))}" if more else f"Primary effect: {first}"
            lines += [f"**{regime}: {verdict}.** {primary}.{looked}", ""]
            if drawable(one["panels"]):
                lines += [f"![{one['title']}, {regime}](../../docs/images/{image_of(one, regime)})", ""]
            lines += ["<details><summary>All effects</summary>", ""]
            lines += ["| effect | estimate | interval | claimed | holds |", "| --- | --- | --- | --- | --- |"]
            lines += [_row(effect, macros) for effect in one["effects"]]
            planned = f" --scale {one['scale']}" if "scale" in one else ""
            command = f"clipmem reproduce --finding {name} --regime {regime}{planned}{_DATA.get(regime, '')}"
            lines += ["", "</details>", "", f"`{command}` took {duration(one['seconds'])} for its runs."]
    return "\n".join(lines)


def _row(effect: Document, macros: Any) -> str:
    primary = f" (primary, {level(effect['confidence'])})" if effect["primary"] else ""
    found = f"{signed(effect['estimate'], entry=effect)} | {interval(effect, sign=True)}"
    claimed = html.unescape(str(macros.claimed(effect["claim"]))).strip()
    return f"| {effect['measure']} | {found} | {claimed} | {effect['holds']}{primary} |"


def _by_length(regime: str, kind: str) -> pl.DataFrame:
    """Return the chosen measures by mitigation, length of training and seed."""
    name = (
        pl.col("name").str.strip_prefix(f"{kind}: ").str.extract_groups(r"^(?<mitigation>.*), (?<epochs>\d+) epochs$")
    )
    runs = pl.read_parquet(HERE / regime / "runs.parquet").filter(pl.col("name").str.starts_with(f"{kind}: "))
    runs = runs.with_columns(name.struct.field("mitigation"), name.struct.field("epochs").cast(pl.Int64))
    chosen = runs.filter(pl.col("measure").is_in(list(_CHOSEN)))
    return chosen.pivot("measure", index=["mitigation", "epochs", "seed"], values="value").sort("seed")


def _change(name: str, own: pl.DataFrame, base: pl.DataFrame, measures: Iterable[str] = _CHOSEN) -> str:
    """Return the row of a table: the change of each measure, paired by seed."""
    changes = [(own[measure] - base[measure]).to_numpy() for measure in measures]
    ends = [ttest_1samp(one, 0).confidence_interval()._asdict() for one in changes]
    cells = [f"{signed(float(one.mean()))} {interval(end, sign=True)}" for one, end in zip(changes, ends, strict=True)]
    return f"| {name} | {' | '.join(cells)} |"


def _means(name: str, own: pl.DataFrame, measures: Iterable[str] = _CHOSEN) -> str:
    return f"| {name} | {' | '.join(f'{own[measure].mean():.3f}' for measure in measures)} |"


def _head(title: str, measures: Sequence[str] = tuple(_CHOSEN)) -> list[str]:
    names = [_CHOSEN[measure] for measure in measures]
    return [f"| {title} | {' | '.join(names)} |", f"|{' --- |' * (1 + len(names))}"]


def choices(regime: str) -> str:
    """Return the changes that each mitigation makes at the longest training of `tradeoff`, paired by seed."""
    runs = _by_length(regime, "tradeoff")
    longest = runs.filter(pl.col("epochs") == runs["epochs"].max())
    plain = longest.filter(mitigation="none")
    lines = [*_head(f"{runs['epochs'].max()} epochs"), _means("none", plain)]
    for name in longest["mitigation"].unique(maintain_order=True):
        lines += [_change(name, longest.filter(mitigation=name), plain)] if name != "none" else []
    return "\n".join(lines)


def longer() -> str:
    """Return means and changes of the longer runs: against the longest ones of `tradeoff`, and by mitigation."""
    runs, before = _by_length(LONGER, "longer"), _by_length(LONGER, "tradeoff")
    length, earlier = runs["epochs"].max(), before["epochs"].max()
    before = before.filter(pl.col("epochs") == earlier, pl.col("seed").is_in(runs["seed"].unique().implode()))
    lines, names = _head("mean, or change with its interval"), runs["mitigation"].unique(maintain_order=True)
    for name in names:
        own = runs.filter(mitigation=name)
        lines += [_means(f"{name}, {length} epochs", own)]
        lines += [_change(f"{name}, {length} minus {earlier} epochs", own, before.filter(mitigation=name))]
    plain = runs.filter(mitigation="none")
    lines += [
        _change(f"{name} minus none, {length} epochs", runs.filter(mitigation=name), plain)
        for name in names
        if name != "none"
    ]
    return "\n".join(lines)


def again() -> str:
    """Return the changes by removal at 20 % swapped captions with the further seeds, paired."""
    runs = _by_length(LONGER, "again")
    equal, more = sorted(runs["epochs"].unique())  # passes, and steps
    measures = [measure for measure in _CHOSEN if measure.startswith("retrieval")]
    of = {(name, epochs): own for (name, epochs), own in runs.group_by("mitigation", "epochs", maintain_order=True)}
    plain = of["none", equal]
    lines = [*_head(f"{plain.height} further seeds", measures), _means("nothing removed", plain, measures)]
    named = [name for name, epochs in of if epochs == equal and name != "none"]
    lines += [_change(f"by {name} minus none", of[name, equal], plain, measures) for name in named]
    equal_steps = [name for name, epochs in of if epochs == more]
    lines += [_change(f"by {name} minus none, equal steps", of[name, more], plain, measures) for name in equal_steps]
    for epochs, where in ((equal, "equal passes"), (more, "equal steps")):
        lines += [_change(f"CLIPMem minus random, {where}", of["CLIPMem", epochs], of["random", epochs], measures)]
    return "\n".join(lines)


def _insert(page: Path, sections: Mapping[str, str]) -> None:
    """Insert sections between the marks of a page; each needs one."""
    text = page.read_text(encoding="utf-8")
    if missing := set(sections) - {block[2] for block in _BLOCK.finditer(text)}:
        sys.exit(f"{page}: no place for {sorted(missing)}, expected a mark <!-- finding: NAME --> for each.")
    text = _BLOCK.sub(lambda block: f"{block[1]}{sections.get(block[2], 'Not run yet.')}\n{block[3]}", text)
    page.write_text(text, encoding="utf-8")


def write_page() -> None:
    """Insert verdicts, figures and tables between the marks of the pages."""
    documents = newest()
    names = {one["finding"] for document in documents.values() for one in document["findings"]}
    sections = {name: section(name, documents) for name in names} | {"longer": longer(), "again": again()}
    _insert(PAGE, sections)
    _insert(GLANCE, {"summary": summary(documents)})
    text = CHOICE.read_text(encoding="utf-8")
    CHOICE.write_text(_BLOCK.sub(lambda found: f"{found[1]}{choices(found[2])}\n{found[3]}", text), encoding="utf-8")
    for regime, document in documents.items():
        for one in shown(document):
            if drawable(one["panels"]):
                image = standalone(finding_figure(one, WIDTH).svg("finding", "wide"))
                (IMAGES / image_of(one, regime)).write_text(image, encoding="utf-8")


def hours(document: Document) -> float:
    """Return the hours of a document's runs; those that findings share count once, at the mean time of a finding's."""
    total, counted = 0.0, set[str]()
    for one in document["findings"]:
        own = {key for name, key in document["runs"].items() if name.partition(":")[0] == one["finding"]}
        total += one["seconds"] / 3600 * len(own - counted) / max(len(own), 1)
        counted |= own
    return total


if __name__ == "__main__":
    if sys.argv[1:] == ["--hours"]:
        each = {
            f"{scale} {name}": hours(one) for scale in ("planned", "repeated") for name, one in stored(scale).items()
        }
        print(*(f"{name}: {value:.1f} h" for name, value in each.items()), f"all: {sum(each.values()):.1f} h", sep="\n")
        sys.exit()
    if sys.argv[1:] == ["--judge"]:
        for document in (one for scale in ("", "planned", "repeated") for one in stored(scale).values()):
            text = json.dumps(judged_again(document), ensure_ascii=False)
            (place_of(document) / "findings.json").write_text(f"{text}\n", encoding="utf-8")
    elif sys.argv[1:2] in (["--longer"], ["--again"]):
        for pair in sys.argv[2:]:
            add(sys.argv[1].removeprefix("--"), pair.split("=")[0], Path(pair.split("=")[1]))
    else:
        for reproduced in sys.argv[1:]:
            keep(Path(reproduced))
    write_page()
