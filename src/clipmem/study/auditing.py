"""`clipmem audit`: how well membership in the training data can be inferred, from in/out models or from one model.

When not to trust it: an audit of one model is only as good as its non-members. If they differ from the members in
anything but membership, an attack need not use memorization. Such data are refused where a classifier without the model
tells the two apart.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int
from torch import nn

from clipmem._version import __version__
from clipmem.base.errors import Unfinished, require
from clipmem.base.folder import Job
from clipmem.base.hashing import data_fingerprint, json_sha256
from clipmem.base.paths import check_place, write_json
from clipmem.base.progress import Advance, Quiet, Reporter
from clipmem.base.random import derive_seed, generator
from clipmem.base.tables import write_parquet
from clipmem.data.decoding import Geometry
from clipmem.data.pairs import Pairs
from clipmem.data.views import as_float, caption_edits, normalize_pixels
from clipmem.models.embeddings import Model, check_device
from clipmem.models.numerics import LONG, computing
from clipmem.models.protocol import DualEncoder, softmax_scale
from clipmem.scoring.aligning import parts_of
from clipmem.stats import membership
from clipmem.stats.intervals import Interval
from clipmem.stats.ranking import auroc, target_means, true_positive_rates
from clipmem.stats.similarity import normalize, pair_means
from clipmem.study.engines import share_of
from clipmem.study.plan import PlannedStudy
from clipmem.study.score_inputs import Data, Settings, read_pairs
from clipmem.study.stages import renew_report
from clipmem.train.objectives import OBJECTIVES
from clipmem.train.paired import TrainingSet

DOCUMENT, TABLE = "audit/audit.json", "audit/pairs"
FEWEST = 200  # pairs
RATES = np.array([0.001, 0.01])
_FOLDS = 5
MARGIN = 0.02  # above .5, of the AUC without the model
VIEWS, EDITS = 8, 4  # of the augmentation attack
PASSES, DROPPED = 10, 0.05  # of the dropout attack: passes, and share of the attention that each drops
_EDGE = 1 - 1e-12  # of cosines: z of 1 is infinite
_INPUTS = ("image", "text", "scale")  # columns beside the scores; scale: of a softmax loss, or NaN
_BLOCK, _PART = 64, 512  # pairs between two reports of progress, and in a part of the work
_CURVE = np.append(0.0, np.logspace(-4, 0, 81))  # false positive rates of the figure
_COUPLES = 100  # of pairs, from which a bound of ε may follow: ten guesses
_BOTH = "--members and --nonmembers"
Trials = Float64[np.ndarray, "model n"]
Table = dict[str, dict[str, object]]  # AUC and rates (see `Attack`) by attack


def audit_run(path: Path | str, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Audit the models of a finished `subsample` study, or the shadow models of a `halves` study; write the report.

    Raises:
        InputError: The run is of another protocol, trains no text tower or is not finished; too few models trained on a
            pair, or did not; or there are fewer than 200 pairs, or the same captions for all.
    """
    reporter, study = reporter or Quiet(), PlannedStudy(path)
    folder, subject = study.folder, f"run folder {study.path}"
    got = f"protocol {study.recipe.protocol!r}"
    hint, expected = "Run a study with protocol = 'subsample' and subsample.fraction = 0.5.", "random members per model"
    require(study.protocol.random_members and study.protocol.compares, subject, got, expected, hint)
    study.check_text(subject)
    _ = study.summary  # raises if the run is not finished
    pool = np.flatnonzero(study.role == "candidate")
    _check_pairs(subject, [study.captions[row] for row in pool])
    with folder.locked():
        document, table = audit(study, pool, reporter)
        folder.write(TABLE, table)
        folder.write_json(DOCUMENT, document)
        reporter.begin("report")
        renew_report(folder)
    return document


def _check_pairs(subject: str, captions: Sequence[Sequence[str]]) -> None:
    got, hint = f"{len(captions):,} pairs", "Audit more pairs: rates of rare errors need many."
    require(len(captions) >= FEWEST, subject, got, f"{FEWEST} pairs or more", hint)
    got, hint = f"the same captions for all {got}", "Give each pair its own caption."
    require(len(set(map(tuple, captions))) > 1, subject, got, "captions that differ", hint)


def audit(study: PlannedStudy, pool: Int[np.ndarray, " n"], reporter: Reporter) -> tuple[dict[str, Any], pl.DataFrame]:
    """Attack every model of a study by the pairs of some rows; return the document, and the pairs by advantage."""
    started = time.monotonic()
    reporter.begin("audit")
    audited = study.design.sign.any(axis=1)  # not f of `halves`, which trained on all pairs
    member, seed = study.design.sign[audited][:, pool] > 0, study.recipe.split.seed
    couple, (first, second) = np.arange(len(study.models)), study.design.couples.T
    couple[second] = first
    models = [study.models[k] for k in np.flatnonzero(audited).tolist()]
    external = study.role == "external"
    cosine = np.stack([parts_of(study.embeddings(model), external).positive.numpy() for model in models])
    similarity = np.arctanh(np.clip(cosine, -_EDGE, _EDGE))  # Fisher's z: closer to normal, as LiRA assumes
    # no model trained on the external pairs: their spread shows an attacker how far apart similarities of a model are
    control = similarity[:, external]
    sd, hint = control.std(axis=1, keepdims=True), "Check the embeddings."
    require(sd.min() > 0, "similarity", "one value for all external pairs", "values that differ", hint)
    signal = (similarity[:, pool] - control.mean(axis=1, keepdims=True)) / sd
    pairs = membership.InOut(signal, member, generator(seed, "audit").random(member.shape), couple[audited])
    scores = {"cosine": signal, "lira": membership.lira(pairs), "rmia": membership.rmia(pairs)}
    offline = {"lira": partial(membership.offline_lira, pairs), "rmia": partial(membership.offline_rmia, pairs)}
    reporter.begin("audit", len(models), "models")
    learned = membership.learned_attack(pairs, study.group[pool], seed=seed, progress=reporter.advance)
    if (log_p := _log_probability(study, models, pool)) is not None:
        # Carlini et al. attack log p - log(1 - p), which is closer to normal
        likely, margin = (pairs._replace(signal=values) for values in (log_p, log_p - np.log(-np.expm1(log_p))))
        lira, rmia = membership.lira(margin), membership.rmia(likely)
        scores |= {"margin": margin.signal, "lira_margin": lira, "rmia_margin": rmia}
        tuned = partial(membership.offline_rmia, likely, corrections=np.linspace(0, 1, 11).tolist())
        offline = {"lira_margin": partial(membership.offline_lira, margin), "rmia_margin": tuned}
    scores["learned"] = learned
    reporter.end("audit", time.monotonic() - started)
    seen, confidence = member.sum(axis=0), study.recipe.score.confidence
    risk, share = membership.pair_risk(scores["lira"], member), membership.exposed_share(pairs)
    curves = {
        name: np.mean([true_positive_rates(*row, _CURVE) for row in zip(values, member, strict=True)], axis=0).tolist()
        for name, values in scores.items()
    }
    document = {
        "format": 1,
        "models": len(member),
        "pairs": len(pool),
        "seen": [int(seen.min()), int(seen.max())],
        "nonmembers": int((~member).sum(axis=1).min()),
        "confidence": confidence,
        "attacks": _over_targets(scores, member, study.group[pool], confidence),
        "offline": _offline(offline, member, study.group[pool], confidence),
        "epsilon": _epsilon(study, pool, member, scores),
        "risk": {"attack": "lira", "pairs": -(-len(pool) // 100), "share": share, "mean": float(risk.risk.mean())},
        "roc": {"fpr": _CURVE.tolist()} | curves,
    }
    columns = {"risk": risk.risk, "false_alarm": risk.false_alarm, "percentile": risk.percentile}
    table = study.splits[pool].select("uid", "planted").with_columns(**{k: pl.Series(v) for k, v in columns.items()})
    order = [pl.col("false_alarm") - pl.col("risk"), -pl.col("percentile"), pl.col("uid")]
    return document, table.sort(order)


def _log_probability(study: PlannedStudy, models: Sequence[TrainingSet], pool: Int[np.ndarray, " n"]) -> Trials | None:
    """Return log p of each pair under each model, against the external pairs; None without weights, or a softmax."""
    weights = all(study.folder.model_dir(model.side, model.seed).is_dir() for model in models)
    if not (OBJECTIVES[study.recipe.train.objective].softmax and weights):
        return None
    bank, rows = study.role == "external", list[Float64[np.ndarray, " n"]]()
    for model in models:
        scale, means = float(study.load(model).logit_scale().detach()), study.means(model, np.ones_like(bank))
        towers = means.image.double().numpy(), means.text.double().numpy()
        rows.append(membership.log_probability(*towers, bank, scale)[pool])
    return np.stack(rows)


def _offline(
    attacks: Mapping[str, Callable[[int], Trials]], member: np.ndarray, groups: np.ndarray, level: float
) -> dict[str, object]:
    """Return how offline attacks do with 1, 2, 4, 8 and 16 references, or as many as the run has."""
    fewest = int((~member).sum(axis=0).min()) - 1
    counts = sorted({min(2**k, fewest) for k in range(5)})
    tables = [_over_targets({k: attack(n) for k, attack in attacks.items()}, member, groups, level) for n in counts]
    return {"references": counts, "attacks": {k: [table[k] for table in tables] for k in attacks}}


def _epsilon(
    study: PlannedStudy, pool: Int[np.ndarray, " n"], member: np.ndarray, scores: Mapping[str, Trials]
) -> dict[str, object]:
    """Return a lower bound of ε over the models; without one the reason: unknown `draw`, or `few` pairs.

    `balanced_draw` treats alike all pairs without near-duplicates: whatever the model's other memberships, all sets of
    as many of them are equally likely, as `correct_guesses` needs. The protocol names the attack (`epsilon_attack`).
    """
    attack, confidence = study.protocol.epsilon_attack or "cosine", study.recipe.score.confidence
    single = np.bincount(study.group)[study.group[pool]] == 1
    scored, inside, seed = scores[attack][:, single], member[:, single], study.recipe.split.seed
    couples = int(min(inside.sum(axis=1).min(), (~inside).sum(axis=1).min()))
    reason = "few" if couples < _COUPLES else "" if study.protocol.epsilon_attack else "draw"
    document: dict[str, object] = {"attack": attack, "couples": couples, "bound": None, "reason": reason}
    if reason:
        return document
    guesses = couples // 10
    correct = [
        membership.correct_guesses(*row, guesses, generator(seed, "epsilon", k))
        for k, row in enumerate(zip(scored, inside, strict=True))
    ]
    bound = membership.epsilon_over_targets(correct, guesses, confidence=confidence)
    return document | {"guesses": guesses, "correct": correct, "bound": bound}


def _over_targets(attacks: Mapping[str, Trials], member: np.ndarray, groups: np.ndarray, confidence: float) -> Table:
    """Return AUC and rates (see `Attack`) of attacks, `target_means` with intervals cut to [0, 1]."""
    table = Table()
    for name, scores in attacks.items():
        means = [row[:3] for row in target_means(scores, member, groups, RATES, confidence=confidence)]
        ends = [[None if end is None else min(max(end, 0.0), 1.0) for end in row] for row in means]
        entries = [dict(zip(("mean", "low", "high"), row, strict=True)) for row in ends]
        level = 1 - (1 - confidence) / len(attacks)
        [auc] = target_means(scores, member, groups, RATES[:0], confidence=level)
        above = auc.mean if auc.low is None else auc.low  # without spread, all pairs are told apart, or none
        table[name] = {"auc": entries[0], "tpr": entries[1:], "above": above > 0.5}
    return table


def audit_model(
    address: str, members: Data, nonmembers: Data, out: Path, settings: Settings, *, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Audit one model with pairs that it trained on and pairs that it did not; write a JSON file.

    Attacks: `cosine`, the similarity; `augmented`, its mean over 8 random crops and the caption with 4 random edits;
    `steadiness`, minus its standard deviation over these crops; `dropout`, its mean over 10 passes that drop 5% of the
    attention, if the model has such layers; `gradient`, minus the norm of its gradient over all weights. By these,
    `set_p_value` tests the members as a set. An attacker who knows some non-members adds `weak`, and for a softmax loss
    `loss_gradient` (`weakly_supervised`). Intervals are over pairs: other pairs of both kinds, this model.

    Raises:
        InputError: The sets share pairs, one has fewer than 100 usable ones, all captions are the same, a classifier
            without the model tells the sets apart (`check_alike`), or `out` was started with other pairs or models.
        Unfinished: `settings.part` is a share of the pairs, which are attacked.
    """
    reporter = reporter or Quiet()
    check_place(out.resolve().parent)
    model, options = settings.model(address), ("--members", "--nonmembers")
    sets = [read_pairs(data, 1, option) for data, option in zip((members, nonmembers), options, strict=True)]
    shared = len(set(sets[0].uids) & set(sets[1].uids))
    hint = "Leave out of --nonmembers what the model trained on."
    require(not shared, _BOTH, f"{shared:,} pairs in both", "no pair in both", hint)
    small, total, job = Geometry(16, "squash"), sum(map(len, sets)), Job(out.with_suffix(".parts"))
    if share_of(settings.part) != (1, 1):
        _attack(model, sets, job, settings, reporter)
    reporter.begin("compare", total, "pairs")
    usable = [list(_blocks(pairs, small, reporter.advance)) for pairs in sets]
    counts, blocks = [sum(map(len, of_set)) for of_set in usable], usable[0] + usable[1]
    for option, count in zip(options, counts, strict=True):
        hint = "Give more pairs: rates of rare errors need many."
        require(count >= FEWEST // 2, option, f"{count:,} usable pairs", f"{FEWEST // 2} or more", hint)
    captions = [texts for block in blocks for texts in block.captions]
    _check_pairs(_BOTH, captions)
    inside, thumbs = np.arange(len(captions)) < counts[0], np.concatenate([block.pixels[small] for block in blocks])
    reporter.begin("classify", _FOLDS, "folds")
    free = check_alike(model_free_features(thumbs, captions), inside, reporter.advance)
    with job.locked():  # shares need no lock: each writes parts that no other one has
        table = _attack(model, sets, job, settings, reporter)
        attacks = {name: table[name].to_numpy() for name in table.columns if name not in _INPUTS}
        scores = attacks | _informed(table, inside)
        document = {
            "format": 1,
            "model": address,
            "members": counts[0],
            "nonmembers": counts[1],
            "left_out": total - len(inside),
            "confidence": settings.confidence,
            "model_free": free._asdict() | {"margin": MARGIN},
            "attacks": _over_pairs(scores, inside, settings.confidence),
            "set_p_value": membership.set_p_value(list(attacks.values()), inside),
            "set_attacks": len(attacks),
        }
        write_json(out, document)
        job.remove()
    return document


def _informed(table: pl.DataFrame, member: Bool[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """Return the scores by attacks that know some non-members."""
    cosine = table["cosine"].to_numpy()[:, None]
    image, text, (scale, *_) = (table[name].to_numpy() for name in _INPUTS)
    seen = membership.Traits(cosine, np.hstack([image, text, cosine]))
    scores = {"weak": membership.cross_fitted(seen, member, threshold=0.5)}
    if np.isfinite(scale):
        signal = -membership.loss_and_gradient(image, text, float(scale))
        scores["loss_gradient"] = membership.cross_fitted(membership.Traits(signal, signal), member, threshold=0.0)
    return scores


def _blocks(pairs: Pairs, geometry: Geometry, progress: Advance) -> Iterator[Pairs]:
    for block in pairs.blocks(range(len(pairs)), _BLOCK, [geometry]):
        yield block
        progress(len(block) + len(block.problems))


def _attack(model: Model, sets: Sequence[Pairs], job: Job, settings: Settings, reporter: Reporter) -> pl.DataFrame:
    """Return the score of each usable pair by each attack; parts of a stopped call, or of other shares, are there."""
    uids = [data_fingerprint(pairs.uids, ordered=True) for pairs in sets]
    device, whole = settings.made_with(job.settings())["device"], not settings.part
    made_with = {"version": __version__, "model": model.content(), "device": device, "pairs": uids}
    job.resume(made_with)
    parts = {f"part-{k:06d}": part for k, part in enumerate(part for pairs in sets for part in pairs.parts(_PART))}
    tasks = {
        k: () if job.is_done(name, hashed=whole) else (model, part.read(), job, name, made_with)
        for k, (name, part) in enumerate(parts.items())
    }
    if any(tasks.values()):
        check_device(job.path, device, model)
    reporter.begin("audit", sum(len(pairs) for task in tasks.values() for pairs in task[1:2]), "pairs")
    with settings.runner(job.path) as run:
        share = run(_attack_part, tasks, reporter.advance)
    if share:
        raise Unfinished(share, sum(not job.is_done(name) for name in parts), len(parts))
    return pl.concat([pl.read_parquet(file) for name in parts for file in job.outputs(name)[0]], how="diagonal")


def _attack_part(
    model: Model, pairs: Pairs, job: Job, name: str, about: Mapping[str, object], *, progress: Advance
) -> None:
    """Write the scores of the usable pairs of a part, if any, and its marker."""
    model = model.shared(json_sha256(about["model"]))
    blocks = _blocks(pairs, model.geometry, progress)
    tables = [pl.DataFrame(_signals(model, block) if len(block) else {}) for block in blocks]
    table, file = pl.concat(tables, how="diagonal"), job.path / f"{name}.parquet"
    job.resume(about, start=False)  # a call that did all parts deletes the folder
    write_parquet(file, table)
    job.finish(name, [file], 0.0)


def model_free_features(pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> Any:
    """Return features of pairs that no model computes, as a sparse matrix: pixels, and TF-IDF of 2 to 4 letters.

    Letters, and not the words of `data.features`: a period at the end of every caption tells two sources apart.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    flat = pixels.reshape(len(pixels), -1) / 255
    words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=5000)
    texts = words.fit_transform([" ".join(pair) for pair in captions])
    return hstack([csr_matrix((flat - flat.mean(axis=0)) / 4), texts]).tocsr()


def check_alike(features: Any, member: Bool[np.ndarray, " n"], progress: Advance = lambda _: None) -> Interval:
    """Return the AUC with which a classifier tells members from non-members by features that no model computes.

    Logistic regression, cross-validated in five folds of pairs; scores are ranks in a fold. The interval is DeLong's,
    over pairs. Raises an `InputError` if its lower bound is above .52.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    scores = np.zeros(len(member))
    for fitted, tested in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(features, member):
        classifier = LogisticRegression(max_iter=2000, class_weight="balanced").fit(features[fitted], member[fitted])
        decisions = classifier.decision_function(features[tested])
        scores[tested] = np.searchsorted(np.sort(decisions), decisions) / len(tested)
        progress(1)
    free = auroc(scores, member)
    got = f"sets that a classifier without the model tells apart, AUC {free.mean:.3f} [{free.low:.3f}, {free.high:.3f}]"
    expected = f"a lower bound of {0.5 + MARGIN:g} or less: an attack must need the model"
    hint = "Use non-members drawn at random from the members' source before training, or audit a `subsample` run."
    require(free.low is not None and free.low <= 0.5 + MARGIN, _BOTH, got, expected, hint)
    return free


def _signals(model: Model, block: Pairs) -> dict[str, Float64[np.ndarray, " n"]]:
    """Return the score of each pair of a block by each attack."""
    captions, uids = block.captions, block.uids.to_list()
    edits = [[texts[0], *caption_edits(texts[0], uid, count=EDITS)] for texts, uid in zip(captions, uids, strict=True)]
    edited = replace(block, table=block.table.with_columns(captions=pl.Series(edits, dtype=pl.List(pl.String))))

    def embeddings(pairs: Pairs, views: int) -> tuple[Float64[np.ndarray, "n view d"], Float64[np.ndarray, "n d"]]:
        single = model.embed(pairs, settings=model.settings.model_copy(update={"views": views}))
        text = pair_means(single.image, single.text, single.text_pair)[1]
        return normalize(single.image.double()).numpy(), text.double().numpy()

    varied = np.einsum("kvd,kd->kv", *embeddings(edited, VIEWS))
    image, text = (each.reshape(len(block), -1) for each in embeddings(block, 0))
    cosine = np.einsum("kd,kd->k", image, text)
    encoder = model.encoder
    single = list(zip(block.pixels[model.geometry][:, None], captions, strict=True))
    with computing("fp32", model.device, tokens=getattr(encoder, "tokens", LONG)):
        norms = [_gradient_norm(encoder, *pair, model.device) for pair in single]
        with dropping_attention(encoder.module) as dropping:
            pairs = zip(single, uids, strict=True) if dropping else ()
            passes = [_with_dropout(encoder, pair, model.device, uid) for pair, uid in pairs]
    return {
        "cosine": cosine,
        "augmented": varied.mean(axis=1),
        "steadiness": -varied.std(axis=1),
        **({"dropout": np.array(passes)} if passes else {}),
        "gradient": -np.array(norms),
        "image": image.astype(np.float32),
        "text": text.astype(np.float32),
        "scale": np.full(len(block), softmax_scale(encoder) or np.nan),
    }


def similarity_of(encoder: DualEncoder, pixels: np.ndarray, captions: Sequence[str], device: str) -> torch.Tensor:
    """Return the similarity of each image and caption in one pass, as the model is: with gradients and dropout."""
    values = normalize_pixels(as_float(torch.from_numpy(pixels).to(device)), encoder.mean, encoder.std)
    image, text = encoder.encode_image(values), encoder.encode_text(encoder.tokenize(captions).to(device))
    return torch.cosine_similarity(image, text)


@contextmanager
def dropping_attention(module: nn.Module) -> Generator[bool]:
    """Let attention layers drop a share of their weights, as in training; yield whether there are such layers."""
    layers = list[Any](module.modules())  # of torch and transformers with a number, of timm with a layer
    sites = [(x, x, "dropout") for x in layers if isinstance(getattr(x, "dropout", None), float)]
    sites += [(x, x.attn_drop, "p") for x in layers if isinstance(getattr(x, "attn_drop", None), nn.Dropout)]
    before = [(attention.training, getattr(drop, name)) for attention, drop, name in sites]
    for attention, drop, name in sites:
        setattr(drop, name, DROPPED)
        attention.training = drop.training = True
    try:
        yield bool(sites)
    finally:
        for (attention, drop, name), (training, share) in zip(sites, before, strict=True):
            setattr(drop, name, share)
            attention.training = drop.training = training


def _with_dropout(encoder: DualEncoder, pair: tuple[np.ndarray, Sequence[str]], device: str, uid: str) -> float:
    """Return the mean similarity of a pair over passes, each with other weights dropped."""
    with torch.no_grad(), torch.random.fork_rng(["cuda"] if device == "cuda" else []):
        torch.manual_seed(derive_seed(0, "dropout attack", uid))
        copies = np.repeat(pair[0], PASSES, axis=0), [*pair[1][:1]] * PASSES
        return float(similarity_of(encoder, *copies, device).double().mean())


def _gradient_norm(encoder: DualEncoder, pixels: np.ndarray, caption: Sequence[str], device: str) -> float:
    """Return the Euclidean norm of the gradient of a pair's similarity over all weights."""
    weights = [weight.requires_grad_() for weight in encoder.module.parameters()]
    similarity = similarity_of(encoder, pixels, caption, device).sum()
    gradients = torch.autograd.grad(similarity, weights, allow_unused=True, materialize_grads=True)
    return float(torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt())


def _over_pairs(attacks: Mapping[str, Float64[np.ndarray, " n"]], member: np.ndarray, confidence: float) -> Table:
    """Return AUC and rates (see `Attack`) of attacks, with their intervals over pairs."""
    table = Table()
    for name, scores in attacks.items():
        rates = true_positive_rates(scores, member, RATES)
        rows = [rates, *membership.rate_intervals(scores, member, RATES, confidence=confidence)]
        tpr = [dict(zip(("mean", "low", "high"), row, strict=True)) for row in np.stack(rows, axis=1).tolist()]
        above = (auroc(scores, member, 1 - (1 - confidence) / len(attacks)).low or 0.0) > 0.5
        table[name] = {"auc": auroc(scores, member, confidence)._asdict(), "tpr": tpr, "above": above}
    return table
