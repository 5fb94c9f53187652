"""The four-way split and the swapped captions.

f trains on shared + candidate, g on shared + independent; external is the bank and the control. Groups are never
divided, so that no near-duplicate of a candidate is in g's training set, and candidate and independent have the same
size, so that f and g train equally long. The split depends on the seed, the uids and the grouping, not on the order of
rows or the names of groups.

When not to trust it: near-duplicates without a group key must be found first (`duplicates.duplicate_groups`).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Int64
from scipy.optimize import Bounds, LinearConstraint, milp

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.hashing import numbered, same_words
from clipmem.base.random import derive_seed, generator
from clipmem.base.sections import ROLES, SplitSection

LARGE = 0.1  # groups above this fraction of a role are avoided there: one subject would fill it
_DRAWS = 200  # a derangement takes e = 2.7 draws on average
_NODES = 10_000  # branches of the exact search before it gives up


def assign_roles(
    uids: Sequence[str], groups: Sequence[str], sizes: Mapping[str, int], *, seed: int
) -> list[str | None]:
    """Assign roles at random with exactly the given sizes, keeping groups together.

    Groups in random order fill shared, then candidate, independent and external; groups that do not fit are skipped,
    and groups larger than a tenth of a role go to shared only. If that misses the sizes, larger groups are allowed; if
    it still does, an integer program finds the closest exact assignment, if there is one.
    """
    _check_pairs(uids, groups)
    subject, got = "[split] sizes", ", ".join(sorted(sizes)) or "none"
    require(set(sizes) == set(ROLES), subject, got, ", ".join(ROLES), "Give each of the four roles a size.")
    targets = {role: sizes[role] for role in ROLES}
    total, (f, g) = sum(targets.values()), (targets["candidate"], targets["independent"])
    require(min(targets.values()) >= 0, subject, _listed(targets), "whole numbers ≥ 0", "Set each size to 0 or more.")
    hint = "Set both to the same number, so that f and g train on equally many pairs."
    require(f == g, subject, f"candidate {f}, independent {g}", "equal candidate and independent", hint)
    got = f"{_listed(targets)} = {total} pairs, with {len(uids)} pairs in the data"
    require(total <= len(uids), subject, got, f"at most {len(uids)} in total", "Reduce the sizes or add data.")
    members: dict[str, list[int]] = {}
    for i in sorted(range(len(uids)), key=uids.__getitem__):
        members.setdefault(groups[i], []).append(i)
    # in the order of the smallest uid, so that row order and group names do not matter
    blocks = list(members.values())
    order = generator(seed, "split").permutation(len(blocks)).tolist()
    lengths = [len(blocks[b]) for b in order]
    filled, exact = _greedy(lengths, targets, LARGE)
    filled, exact = (filled, exact) if exact else _greedy(lengths, targets, 1.0)
    filled = filled if exact else _solve(lengths, targets)
    if filled is None:
        got = f"{_listed(targets)} of {len(uids)} pairs in {len(blocks)} groups, the largest of {max(lengths)}"
        hint = "Change the sizes or leave more pairs unused: groups are never divided."
        raise InputError(subject, got=got, expected="sizes that whole groups add up to", hint=hint)
    roles: list[str | None] = [None] * len(uids)
    for b, role in zip(order, filled, strict=True):
        for i in blocks[b]:
            roles[i] = role
    return roles


def _greedy(lengths: Sequence[int], targets: Mapping[str, int], large: float) -> tuple[list[str | None], bool]:
    """Return the role of each group, and whether the sizes are met exactly."""
    roles: list[str | None] = [None] * len(lengths)
    remaining = dict(targets)
    for role in ROLES:
        limit = targets[role] if role == "shared" else max(1, int(large * targets[role]))
        for b, length in enumerate(lengths):
            if roles[b] is None and length <= min(limit, remaining[role]):
                roles[b] = role
                remaining[role] -= length
    return roles, not any(remaining.values())


def _solve(lengths: Sequence[int], targets: Mapping[str, int]) -> list[str | None] | None:
    """Meet the sizes exactly by integer programming.

    With distinct group sizes s_j, their counts c_j, and x_jr groups of size s_j in role r: minimize
    sum_jr s_j |x_jr - greedy_jr| subject to sum_j s_j x_jr = targets_r, sum_r x_jr ≤ c_j, x integer.
    """
    greedy, _ = _greedy(lengths, targets, 1.0)
    have = Counter(zip(lengths, greedy, strict=True))
    count = Counter(lengths)
    kinds, roles = np.array(sorted(count)), len(ROLES)
    q = len(kinds)
    near = np.array([[have[int(s), role] for role in ROLES] for s in kinds], dtype=np.float64).ravel()
    target = np.array([targets[role] for role in ROLES], dtype=np.float64)
    limit = np.array([count[int(s)] for s in kinds], dtype=np.float64)
    # variables: x (by size, then role), then the distances |x - near|
    eye = np.eye(q * roles)
    by_role = np.hstack([np.kron(kinds, np.eye(roles)), np.zeros((roles, q * roles))])
    by_kind = np.hstack([np.kron(np.eye(q), np.ones(roles)), np.zeros((q, q * roles))])
    solution = milp(
        np.concatenate([np.zeros(q * roles), np.repeat(kinds, roles).astype(np.float64)]),
        integrality=np.repeat([1, 0], q * roles),
        bounds=Bounds(0, np.inf),
        constraints=[
            # low <= matrix @ x <= high; scipy's types do not allow arrays as bounds
            LinearConstraint(by_role, target, target),  # pyright: ignore[reportArgumentType]
            LinearConstraint(by_kind, np.zeros(q), limit),  # pyright: ignore[reportArgumentType]
            LinearConstraint(np.hstack([eye, -eye]), -np.inf, near),  # pyright: ignore[reportArgumentType]
            LinearConstraint(np.hstack([-eye, -eye]), -np.inf, -near),  # pyright: ignore[reportArgumentType]
        ],
        options={"node_limit": _NODES},
    )
    if solution.x is None:
        return None
    x = np.rint(solution.x[: q * roles]).astype(int).reshape(q, roles)
    # groups of one size are interchangeable: those that keep their greedy role first, then in random order
    quota = {(int(s), role): int(x[j, r]) for j, s in enumerate(kinds) for r, role in enumerate(ROLES)}
    result: list[str | None] = [None] * len(lengths)
    for wanted in ([(role,) for role in greedy], [ROLES] * len(lengths)):
        for b, length in enumerate(lengths):
            role = next((role for role in wanted[b] if role and quota[length, role] > 0), None)
            if result[b] is None and role:
                result[b] = role
                quota[length, role] -= 1
    return result


def plant_captions(
    candidates: Sequence[str], n: int, *, seed: int, captions: Mapping[str, Sequence[str]] | None = None
) -> dict[str, str]:
    """Swap the captions of n candidates: planted errors that a score should find.

    The candidates and their derangement (a permutation without fixed points) are uniform, by rejection sampling. With
    `captions`, draws that give a pair its own first caption are rejected as well. If that fails 200 times (few
    different captions), a valid assignment is built and mixed by swaps, which is only nearly uniform.
    """
    pool = sorted(candidates)
    expected = f"0, or 2 to {len(pool)}" if len(pool) > 1 else "0"
    hint = "Set it to 0, or to 2 or more: the caption of a single pair cannot be swapped."
    hint = hint if n == 1 else "Plant fewer pairs or ask for more candidates."
    require(n == 0 or 2 <= n <= len(pool), "[split] planted", f"{n} with {len(pool)} candidates", expected, hint)
    lacking = [] if captions is None else [uid for uid in pool if not captions.get(uid)]
    got = f"none for {shorten(''.join(lacking[:1]))} and {len(lacking) - 1} more"
    hint = "Remove pairs without captions before the split."
    require(not lacking, "captions", got, "one or more for each candidate", hint)
    texts = pool if captions is None else [same_words(captions[uid][0]) for uid in pool]
    [(text, count)] = Counter(texts).most_common(1) or [("", 0)]
    got = f"{n} with {count} of {len(pool)} candidates captioned {shorten(text)}"
    expected, hint = "enough different captions to give each chosen pair a wrong one", "Swap fewer captions."
    enough = sum(min(times, n // 2) for times in Counter(texts).values()) >= n
    require(enough, "[split] planted", got, expected, hint)
    rng = generator(seed, "plant")
    kinds = numbered(texts)
    for _ in range(_DRAWS):
        receivers = rng.permutation(len(pool))[:n]
        donors = receivers[rng.permutation(n)]
        if bool((kinds[receivers] != kinds[donors]).all()):
            break
    else:
        receivers, donors = _mixed(kinds, n, rng)
    return {pool[i]: pool[j] for i, j in sorted(zip(receivers.tolist(), donors.tolist(), strict=True))}


def _mixed(
    kinds: Int64[np.ndarray, " n"], n: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Build a valid assignment for candidates with few different captions, and mix it.

    Choose at most n // 2 of each caption, sort by caption, shift by the largest count m: as m ≤ n - m, no pair gets its
    own caption. Then 20 random valid swaps per pair.
    """
    counts: Counter[int] = Counter()
    receivers: list[int] = []
    for i in rng.permutation(len(kinds)).tolist():
        if len(receivers) < n and counts[int(kinds[i])] < n // 2:
            receivers.append(i)
            counts[int(kinds[i])] += 1
    pairs = np.array(sorted(receivers, key=lambda i: int(kinds[i])))
    donors = np.roll(pairs, -max(counts.values()))
    for a, b in rng.integers(0, n, size=(20 * n, 2)).tolist():
        if kinds[pairs[a]] != kinds[donors[b]] and kinds[pairs[b]] != kinds[donors[a]]:
            donors[[a, b]] = donors[[b, a]]
    return pairs, donors


def split_table(
    uids: Sequence[str],
    groups: Sequence[str],
    split: SplitSection,
    *,
    captions: Mapping[str, Sequence[str]] | None = None,
    roles: Sequence[str | None] | None = None,
    mismatched: Collection[str] = (),
) -> pl.DataFrame:
    """Return the table of splits.parquet: roles and swapped captions of the used pairs, sorted by uid.

    Args:
        uids: The pairs of the data.
        groups: Their groups, which are not divided.
        split: The recipe's `[split]`: sizes, seed, and how many captions are swapped; pairs swap within their role, so
            that no caption of an external pair is trained on.
        captions: The captions, to give no chosen pair its own.
        roles: The roles, None for unused pairs, if they are not to be drawn.
        mismatched: Pairs that already have mismatched captions.
    """
    sizes, share = split.sizes, split.planted_share
    if roles is None:
        roles = assign_roles(uids, groups, sizes, seed=split.seed)
    else:
        _check_pairs(uids, groups)
        check_given_sizes(sizes, roles)
        first: dict[str, int] = {}
        for i, (group, role) in enumerate(zip(groups, roles, strict=True)):
            j = i if role is None else first.setdefault(group, i)
            got = f"{shorten(uids[j])} as {roles[j]} and {shorten(uids[i])} as {role}, which are near-duplicates"
            hint = "Give both the same role, or set split.near_duplicates to false."
            require(roles[j] == role, "[data] role_column", got, "one role for each group of pairs", hint)
    swapped: dict[str, str] = {}
    for role in split.planted_roles if share else ("candidate",):
        pool = [uid for uid, name in zip(uids, roles, strict=True) if name == role]
        n = round(share * len(pool)) if share else split.planted
        n += n == 1 and share > 0  # a single pair cannot be swapped
        own_seed = split.seed if role == "candidate" else derive_seed(split.seed, role)
        swapped |= plant_captions(pool, n, seed=own_seed, captions=captions)
    columns = {
        "uid": pl.Series(uids, dtype=pl.String),
        "role": pl.Series(roles, dtype=pl.String),
        "group": pl.Series(groups, dtype=pl.String),
        "planted": pl.Series([uid in swapped or uid in mismatched for uid in uids], dtype=pl.Boolean),
        "captions_from": pl.Series([swapped.get(uid, uid) for uid in uids], dtype=pl.String),
    }
    return pl.DataFrame(columns).filter(pl.col("role").is_not_null()).sort("uid")


def check_given_sizes(sizes: Mapping[str, int], roles: Sequence[str | None], *, at_most: bool = False) -> None:
    """Check that the sizes are those of the roles that the data give, or `at_most` those."""
    counts = {role: sum(name == role for name in roles) for role in ROLES}
    fits = all(sizes[role] <= counts[role] for role in ROLES) if at_most else counts == dict(sizes)
    hint = "Use " + " ".join(f"--set split.{role}={size}" for role, size in counts.items()) + ", with a new --out DIR."
    require(fits, "[split] sizes", _listed(sizes), f"{_listed(counts)}, as in data.role_column", hint)


def _check_pairs(uids: Sequence[str], groups: Sequence[str]) -> None:
    expected = f"one for each of the {len(uids)} pairs"
    require(len(groups) == len(uids), "groups", f"{len(groups)}", expected, "Give one group per pair.")
    [(uid, count)] = Counter(uids).most_common(1) or [("", 0)]
    require(count < 2, "uids", f"{shorten(uid)} {count} times", "each uid once", "Remove the repeated pairs.")


def _listed(targets: Mapping[str, int]) -> str:
    return ", ".join(f"{role} {size}" for role, size in targets.items())
