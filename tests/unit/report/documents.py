"""Documents as stages write them, with chosen numbers: utility, Déjà Vu, inspection, audits."""

from typing import Any


def value(mean, low=None, high=None):
    return {"mean": mean, "low": low, "high": high, "over": "pairs"}


UTILITY_SIDE = {
    "zero_shot_acc1": value(0.458, 0.388, 0.522),
    "zero_shot_mean_per_class_recall": value(0.408, 0.353, 0.461),
    "linear_probe_acc1": value(0.588, 0.503, 0.668),
    "linear_probe_mean_per_class_recall": value(0.517, 0.449, 0.587),
    "zero_shot_concept_acc1": value(0.052, 0.031, 0.074),
    "zero_shot_concept_acc5": value(0.171, 0.12, 0.222),
    "linear_probe_sublabel_acc1": value(0.301, 0.25, 0.352),
    "alignment_loss": value(0.912, 0.881, 0.943),
    "image_uniformity_loss": value(-2.314, -2.402, -2.226),
    "text_uniformity_loss": value(-2.771, -2.844, -2.698),
    "retrieval_recall@5": value(0.188, 0.14, 0.23),
    "retrieval_mAP": value(0.137, 0.101, 0.173),
    "image_retrieval_recall@5": value(0.188, 0.133, 0.245),
    "text_retrieval_recall@5": value(0.188, 0.02, 0.237),
}
UTILITY = {
    "seeds": {"f": [0, 1], "g": [0, 1]},
    "samples_seen": {"f": [160, 160], "g": [160, 160]},
    "n": {
        "test": 200, "labeled": 190, "captions": 200, "probe_train": 1300, "probe_test": 190, "classes": 9,
        "classes_in_test": 8, "concepts": 120, "with_concept": 150, "sublabels": 98,
    },
    "chance": {
        "zero_shot_acc1": 1 / 9, "zero_shot_mean_per_class_recall": 1 / 9, "linear_probe_acc1": 1 / 9,
        "linear_probe_mean_per_class_recall": 1 / 9,
        "image_retrieval_recall@5": 0.025, "text_retrieval_recall@5": 0.025, "retrieval_recall@5": 0.025,
        "retrieval_mAP": 0.029, "zero_shot_concept_acc1": 1 / 120, "zero_shot_concept_acc5": 5 / 120,
        "linear_probe_sublabel_acc1": 1 / 98,
    },
    "skipped": {},
    "labels": "label",
    "probe_pairs": "shared pairs",
    "templates": ["{}", "a <b>{}</b>"],
    "commonest_class_acc1": 0.135,
    "metrics": {"f": UTILITY_SIDE, "g": {**UTILITY_SIDE, "zero_shot_acc1": value(0.42)}},
}  # fmt: skip


def changed(mean, low, high):
    return {**value(0.5, 0.4, 0.6), "change": value(mean, low, high)}


RETAINED = {
    **{key: UTILITY[key] for key in ("n", "chance", "labels", "templates")},
    "seeds": {"base": [0], "f": [0, 1], "g": [0, 1]},
    "pairs": "photos/<old>",
    "left_out": 3,
    "skipped": {"linear_probe": "not asked for"},
    "metrics": {
        "base": {name: value(0.6, 0.5, 0.7) for name in ("zero_shot_acc1", "image_retrieval_recall@5")},
        "f": {
            "zero_shot_acc1": changed(-0.123, -0.2, -0.046), "image_retrieval_recall@5": changed(-0.01, -0.015, 0.02),
        },
        "g": {name: changed(0.25, 0.1, 0.4) for name in ("zero_shot_acc1", "image_retrieval_recall@5")},
    },
}  # fmt: skip
WORDINGS = {
    "captions": {"scored": 1, "trained": 3},
    "wordings": {
        "count": 5,
        "roles": {"candidate": {"n": 12, **value(0.7123, 0.6, 0.8), "sd": 0.2, "median": 0.7}},
        "half_difference": value(0.6543, 0.6, 0.7),
    },
    "utility": {
        **UTILITY,
        "chance": {**UTILITY["chance"], "retrieval_wordings_recall@5": 0.0312},
        "metrics": {side: {**UTILITY_SIDE, "retrieval_wordings_recall@5": value(0.2718, 0.2, 0.35)} for side in "fg"},
    },
}
NO_UTILITY = {
    **UTILITY,
    "n": {**UTILITY["n"], "labeled": 0},
    "skipped": dict.fromkeys(("zero_shot", "linear_probe"), "no external pair has a \x1b[31mlabel"),
    "metrics": {
        side: {name: entry for name, entry in UTILITY_SIDE.items() if name.startswith(("image_retr", "text_retr"))}
        for side in "fg"
    },
}


def gap(mean, low, high):
    return {"mean": mean, "low": low, "high": high, "over": "pairs"}


def dejavu_entry(mean, n=60):
    some = gap(mean, mean - 0.05, mean + 0.05)
    top = {"precision": some, "recall": gap(0.5, 0.4, 0.6), "f_score": some}
    return {
        "n": n,
        "without_objects": 0,
        "precision": {"f": 0.1, "reference": 0.1},
        "recall": {"f": 0.412, "reference": 0.371},
        "precision_gap": some,
        "recall_gap": some,
        "auc_gap": gap(mean / 2, None, None),
        "top": [{"fraction": 0.001, "pairs": 1, **top}, {"fraction": 0.1, "pairs": 12, **top}],
    }


DEJAVU_ROLES = {"candidate": dejavu_entry(0.25), "independent": dejavu_entry(-0.2, 20), "shared": dejavu_entry(0.0, 24)}
DEJAVU = {
    "format": 1,
    "neighbors": 10,
    "seeds": [[0, 0]],
    "public": 20,
    "objects": {"names": 30, "candidate_mean": 4.0, "in_public": 0.7},
    "two_model": {
        "roles": DEJAVU_ROLES,
        "extra_mean": 0.3,
        "clipmem": {"spearman": 0.222, "low": 0.1, "high": 0.3},
        "planted": {"n": 8, "auroc": 0.756, "low": 0.6, "high": 0.85},
    },
    "floor": {"top": [{"fraction": 0.001, "pairs": 1, "recall": gap(0.333, 0.2, 0.4), "f_score": gap(0.1, 0.0, 0.2)}]},
}


def inspection(text: str = "why") -> dict[str, Any]:
    """What `clipmem inspect` finds, with one text wherever data are shown."""
    spread = {"min": 1, "median": 2, "p95": 3, "max": 4}
    sample = {"uid": "a", "key": text, "captions": [text, "b"], "more_captions": 2, "format": "PNG"}
    reason = {"reason": text, "count": 1, "examples": [{"source": text, "key": text}, {"source": text, "key": "b"}]}
    return {
        "source": "parquet",
        "why": text,
        "pairs": 1,
        "labels": 2,
        "records": {"read": 2, "pairs": 1, "merged": 0, "left_out": 1, "unnamed": 1, "ignored": {text: 1}},
        "captions": {"total": 1, "per_pair": {"1": 1}, "words": spread},
        "images": {"read": 1, "of": 2, "formats": {"PNG": 1}, "width": spread, "height": spread, "bytes": spread},
        "samples": [{**sample, "width": 1, "height": 1}],
        "duplicates": {"exact": {"images": 0, "of": 1}, "near": {"images": 2, "of": 2, "groups": 1}},
        "regime": {
            "pairs": 100,
            "same_caption": 0.5,
            "near_caption": 0.75,
            "near_image": None,
            "images": 0,
            "searched": 90,
            "equal_captions": 0.5,
            "near_captions": 3.0,
            "nearest_caption": 0.9,
            "near_duplicates": 0.75,
            "verdict": "redundant",
            "words": {"distinct": 1234, "once": 0.25, "rare_pairs": 0.125, "pairs": 100},
        },
        "problems": {"listed": 1, "decoded": 1, "of": 2, "undecodable": 1, "reasons": [reason]},
        "cost": {
            "decode_seconds": 3.0,
            "cache_bytes": 2e6,
            "memory_bytes": 9.8e8,
            "memory_batch": 64,
            "train_seconds": 75.0,
            "assumed": "two seeds",
            "decoded_per_second": 100.0,
            "trained_per_second": 1000.0,
        },
        "against": {"model": text, "searched": 1900, "aligned": 12, "samples": [{"key": text, "captions": [text]}]},
    }


def model_parts(name: str = "clipmem-tiny") -> dict[str, Any]:
    """What `clipmem inspect` finds."""
    sizes = {"image.embeddings": 100, "image.blocks.0": 2000, "text.blocks.0": 3000, "logit_scale": 1}
    parts = [
        {"part": part, "parameters": n, "trained": n * part.startswith("text"), "names": [f"{part}.weight"]}
        for part, n in sizes.items()
    ]
    return {"model": name, "image_size": 64, "context": 40, "parts": parts, "listed": True}


def attack(auc: float, tpr: float, *, half: float = 0.02) -> dict[str, Any]:
    """An attack's AUC, and its true positive rates at 0.1% and 1% false positives."""
    rates = [{"mean": one, "low": max(one - half, 0.0), "high": one + half} for one in (tpr / 4, tpr)]
    auc_of = {"mean": auc, "low": auc - half, "high": auc + half}
    return {"auc": auc_of, "tpr": rates, "above": auc - 1.3 * half > 0.5}


AUDIT = {
    "format": 1,
    "models": 8,
    "pairs": 60,
    "seen": [4, 4],
    "nonmembers": 30,
    "confidence": 0.95,
    "attacks": {
        "cosine": attack(0.61, 0.05),
        "lira": attack(0.72, 0.14),
        "rmia": attack(0.515, 0.012),
        "rmia_margin": attack(0.51, 0.01),
    },
    "offline": {
        "references": [1, 2, 3],
        "attacks": {
            "lira_margin": [attack(0.6, 0.03), attack(0.62, 0.05), attack(0.64, 0.07)],
            "rmia_margin": [attack(0.59, 0.02), attack(0.61, 0.04), attack(0.63, 0.06)],
        },
    },
    "epsilon": {
        "attack": "cosine",
        "couples": 130,
        "bound": 0.416,
        "reason": "",
        "guesses": 13,
        "correct": [11, 12, 13, 12, 12, 11, 12, 13],
    },
    "risk": {"attack": "lira", "pairs": 1, "share": 0.21, "mean": 0.1},
    "roc": {
        "fpr": [0.0, 0.01, 1.0],
        "cosine": [0.0, 0.05, 1.0],
        "lira": [0.0, 0.14, 1.0],
        "rmia": [0.0, 0.012, 1.0],
        "rmia_margin": [0.0, 0.01, 1.0],
    },
}
MODEL_AUDIT = {
    "format": 1,
    "model": "FOLDER",
    "members": 1500,
    "nonmembers": 1200,
    "left_out": 1,
    "confidence": 0.95,
    "model_free": {"mean": 0.51, "low": 0.49, "high": 0.53, "over": "pairs", "margin": 0.02},
    "attacks": {"cosine": attack(0.505, 0.02), "gradient": attack(0.49, 0.01), "loss_gradient": attack(0.52, 0.02)},
    "set_p_value": 0.21,
    "set_attacks": 2,
}
TRACED = {
    "format": 1,
    "run": "RUN",
    "image": "005ab9f1fa43ffd8",
    "caption": "0220eea80c9ea6d1",
    "text": "a ticket",
    "similarity": 0.512,
    "pairs": 4000,
    "held_out": 900,
    "shadow_models": 16,
    "lds": {"mean": 0.487, "low": 0.463, "high": 0.512},
    "lds_of_similarity": {"mean": 0.088, "low": 0.065, "high": 0.111},
    "raised": [(0.0737, "387428f9e10ce27b", "ticket"), (0.0134, "0050a92ea7434d62", "leg")],
    "lowered": [(-0.0028, "fd877e8051721be3", "leg"), (-0.0017, "5d40d59ff4e5506b", "[red]chains[/red]")],
}
