"""CLIP-MIA-Bench: membership inference on one of its checkpoints, by its five attacks and by clipmem's.

    python examples/kits/clip_mia_bench.py CLIP-MIA-Bench --scale 400M --out mia-400M

CLIP-MIA-Bench is the folder in which its `download_assets.sh` ran (Gomez, "Rethinking Membership Inference Attacks for
CLIP", AAAI 2026). It has `clip-mia-bench-data/data/{member,nonmember}/*.tar`, jpg and txt of 26 and 26 tars, and
`clip-mia-bench-models/model/{4M,40M,400M}/checkpoints/epoch_latest.pt`. As there, the first three tars of either kind
are attacked. Of the others, non-members are known to the attacker, and members and non-members are a mixed pool.

| attack | name there | what differs here |
| --- | --- | --- |
| words alone | Blind | nothing: logistic regression on TF-IDF of one and two words, five folds, here pooled |
| similarity | CSA | no threshold: AUC and TPR do not need one |
| similarity, dropout | MCD | nothing: the mean of 10 passes with a dropout of 0.05 in attention |
| weak supervision | WSA | logistic regression by scikit-learn until it converges, on standardized features |
| loss and gradient | WSA with loss and gradient | random batches of 64 or a few more pairs; classes weigh the same |
| margin | none | log p - log(1 - p) of a pair in a batch with 1,000 known non-members, at the model's temperature |

--audit adds the attacks of `clipmem audit --model`. They include an augmentation attack and the gradient over all
weights, and refuse sets that can be told apart without the model. It takes as long as ten further passes.

Pairs that do not decode, and images that are in both sets, are left out and counted. TPR at 1% FPR lies on the line
between two points of the ROC curve. Intervals are over pairs. They do not cover another training of the same model.
Written for the files of 2026-03; run on a stand-in in their layout with a small model, never on the benchmark itself.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

import clipmem
from clipmem.base.errors import require
from clipmem.base.paths import write_json
from clipmem.functional import auroc
from clipmem.models.embeddings import Embeddings
from clipmem.stats.membership import (
    Traits,
    log_probability,
    loss_and_gradient,
    rate_intervals,
    weakly_supervised,
)
from clipmem.stats.ranking import true_positive_rates
from clipmem.study.auditing import PASSES, dropping_attention, similarity_of
from clipmem.study.score_inputs import Settings, read_pairs
from clipmem.study.scoring import embed_pairs

EVALUATED = 3  # first tars of either kind
RATE = np.array([0.01])
BATCH, BANK, SEED = 64, 1000, 0
THERE = {
    "words alone": "Blind",
    "similarity": "CSA",
    "similarity, dropout": "MCD",
    "weak supervision": "WSA",
    "loss and gradient": "WSA (loss, gradient)",
}


class Rows:
    """Unit embeddings of some pairs, with their captions."""

    def __init__(self, embeddings, rows):
        means = embeddings.read(rows)
        self.image, self.text = means.image.double(), means.text.double()
        self.uids, self.captions = embeddings.uids[rows].to_list(), embeddings.captions(rows)
        self.similarity = (self.image * self.text).sum(dim=1).numpy()

    def seen(self):
        """Return what the weakly supervised attack sees: similarity as its signal, embeddings too as its features."""
        similarity = self.similarity[:, None]
        return Traits(similarity, np.hstack([self.image.numpy(), self.text.numpy(), similarity]).astype(np.float32))

    def loss_and_gradient(self, scale):
        """Return minus each pair's contrastive loss in a batch of 64, and minus the norm of its gradient."""
        signal = -loss_and_gradient(self.image.numpy(), self.text.numpy(), scale)
        return Traits(signal, signal)


def join(first, second):
    """Return the features or scores of members and then of non-members."""
    return np.concatenate([first, second])


def words_alone(captions, member):
    """Tell members by their words, without the model; each pair's rank in its fold."""
    texts, scores = [" ".join(texts) for texts in captions], np.zeros(len(member))
    for fitted, tested in StratifiedKFold(5, shuffle=True, random_state=SEED).split(texts, member):
        vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=100_000)
        attack = make_pipeline(vectors, LogisticRegression(max_iter=1000, class_weight="balanced"))
        attack.fit([texts[row] for row in fitted], member[fitted])
        decisions = attack.decision_function([texts[row] for row in tested])
        scores[tested] = np.searchsorted(np.sort(decisions), decisions) / len(tested)
    return scores


def dropout_similarity(model, data, uids):
    """Return the mean similarity of pairs over passes with dropout in attention; None without such layers."""
    torch.manual_seed(SEED)
    similarity, encoder = {}, model.encoder
    encoder.module.to(model.device).eval()
    with torch.no_grad(), dropping_attention(encoder.module) as dropping:
        for tars in data if dropping else ():
            pairs = read_pairs(tars, 1, "data")
            for block in pairs.blocks(range(len(pairs)), BATCH, [model.geometry]):
                shown = block.pixels[model.geometry], [texts[0] for texts in block.captions]
                passes = [similarity_of(encoder, *shown, model.device) for _ in range(PASSES)]
                similarity.update(zip(block.uids.to_list(), torch.stack(passes).mean(dim=0).tolist(), strict=True))
    return np.array([similarity[uid] for uid in uids]) if dropping else None


def attacks(model, sets, folder, settings):
    """Return the scores of the attacked pairs by each attack, and which of them are members."""
    stored = {name: Embeddings.open(folder / name) for name in sets}
    uids = {name: stored[name].uids for name in ("member", "nonmember")}
    both = uids["member"].filter(uids["member"].is_in(uids["nonmember"].implode()))
    inside, outside = (Rows(stored[name], np.flatnonzero(~uids[name].is_in(both.implode()))) for name in uids)
    known, other = (Rows(stored[name], np.arange(len(stored[name]))) for name in ("known", "pool"))
    member = join(np.ones(len(inside.uids), dtype=bool), np.zeros(len(outside.uids), dtype=bool))
    similarity = join(inside.similarity, outside.similarity)
    opened = settings.model(model)
    scale = float(opened.encoder.logit_scale().detach())
    scores = {"words alone": words_alone(inside.captions + outside.captions, member), "similarity": similarity}
    dropped = dropout_similarity(settings.model(model), [sets[name] for name in uids], inside.uids + outside.uids)
    scores |= {} if dropped is None else {"similarity, dropout": dropped}
    rows = (known, other, inside, outside)
    for name, signals, threshold in (
        ("weak supervision", [one.seen() for one in rows], 0.5),
        ("loss and gradient", [one.loss_and_gradient(scale) for one in rows], 0.0),
    ):
        mixed, attacked = (Traits(*map(join, *both)) for both in (signals[:2], signals[2:]))
        scores[name] = weakly_supervised(signals[0], mixed, attacked.features, threshold=threshold)
    bank = np.random.default_rng(SEED).permutation(len(known.uids))[:BANK]
    image = torch.cat([inside.image, outside.image, known.image[bank]]).numpy()
    text = torch.cat([inside.text, outside.text, known.text[bank]]).numpy()
    log_p = log_probability(image, text, np.arange(len(image)) >= len(member), scale)[: len(member)]
    scores["margin"] = log_p - np.log(-np.expm1(log_p))
    return scores, member, len(both)


def measured(scores, member):
    """Return AUC and TPR at 1% FPR, each with its 95% interval over pairs."""
    [tpr], [[low], [high]] = true_positive_rates(scores, member, RATE), rate_intervals(scores, member, RATE)
    return {"auc": auroc(scores, member)._asdict(), "tpr": {"mean": float(tpr), "low": float(low), "high": float(high)}}


def shards(folder):
    """Return the tars of a kind that are attacked, and the others."""
    tars = sorted(str(file) for file in folder.glob("*.tar"))
    expected = f"more than {EVALUATED} tars"
    require(len(tars) > EVALUATED, f"{folder}", f"{len(tars)} tars", expected, "Run download_assets.sh there first.")
    return tars[:EVALUATED], tars[EVALUATED:]


def benchmark(root, scale, architecture, out, *, device="auto", audit=False):
    """Embed the tars, run the attacks, and return the document."""
    checkpoint = root / "clip-mia-bench-models" / "model" / scale / "checkpoints" / "epoch_latest.pt"
    address = f"{architecture}@{checkpoint}"
    data = root / "clip-mia-bench-data" / "data"
    (member, members), (nonmember, known) = shards(data / "member"), shards(data / "nonmember")
    sets = {"member": member, "nonmember": nonmember, "known": known, "pool": members}
    sets = {name: "::".join(tars) for name, tars in sets.items()}
    settings = Settings.of(captions=1, device=device)
    for name, tars in sets.items():
        print(embed_pairs(address, tars, out / "embeddings" / name, settings))
    scores, inside, both = attacks(address, sets, out / "embeddings", settings)
    rows = {name: measured(values, inside) for name, values in scores.items()}
    document = {"format": 1, "scale": scale, "model": architecture, "clipmem": clipmem.__version__, "in_both": both}
    document |= {"members": int(inside.sum()), "nonmembers": int((~inside).sum()), "attacks": rows, "names": THERE}
    if audit:
        file = out / "audit.json"
        member, nonmember = sets["member"], sets["nonmember"]
        audited = clipmem.audit(model=address, members=member, nonmembers=nonmember, out=file, device=device)
        document["audit"] = audited["attacks"]
    return document


def page(document):
    """Return the attacks as Markdown."""
    interval = "{mean:.3f} [{low:.3f}, {high:.3f}]".format
    lines = [
        f"{document['model']}, {document['scale']}: {document['members']:,} members and {document['nonmembers']:,} "
        f"non-members; {document['in_both']} pairs in both sets left out; 95% intervals over pairs",
        "",
        "| attack | in the benchmark | AUC | TPR at 1% FPR, % |",
        "| --- | --- | --- | --- |",
    ]
    audited = {f"audit: {name}": {**row, "tpr": row["tpr"][1]} for name, row in document.get("audit", {}).items()}
    for name, row in (document["attacks"] | audited).items():
        percent = {end: 100 * value for end, value in row["tpr"].items()}
        rates = "{mean:.1f} [{low:.1f}, {high:.1f}]".format(**percent)
        lines.append(f"| {name} | {THERE.get(name, '')} | {interval(**row['auc'])} | {rates} |")
    return "\n".join(lines) + "\n"


def main(arguments=None):
    """Read the command line, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where download_assets.sh of CLIP-MIA-Bench ran")
    parser.add_argument("--scale", required=True, help="which checkpoint: 4M, 40M or 400M")
    parser.add_argument("--model", default="ViT-B-16", help="architecture of the checkpoint")
    parser.add_argument("--out", type=Path, default=Path("clip-mia-bench"), help="output folder; resumed after a stop")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--audit", action="store_true", help="also run clipmem audit --model")
    options = parser.parse_args(arguments)
    how = {"device": options.device, "audit": options.audit}
    try:
        document = benchmark(options.folder, options.scale, options.model, options.out, **how)
    except clipmem.InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    write_json(options.out / "results.json", document)
    (options.out / "results.md").write_text(page(document), encoding="utf-8")
    print(page(document))


if __name__ == "__main__":
    main()
