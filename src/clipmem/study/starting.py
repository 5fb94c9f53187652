"""`clipmem init --data`: a recipe for data that somebody has, with roles and a training that fit their number."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe, recipe_from
from clipmem.base.sections import SplitSection
from clipmem.data.inspection import Looked, look_at
from clipmem.data.sources import open_source
from clipmem.data.splits import ROLES, assign_roles
from clipmem.report.escape import visible
from clipmem.study.api import find_recipe
from clipmem.study.data_commands import find_data

FEWEST = 50  # pairs: four or five in each measured role tell nothing of a single pair, but show that all works
_USED = 0.95
_MOST = {"shared": 65_000, "candidate": 5_000}  # as in the published studies
_STEPS, _EPOCHS = 432, (10, 100)  # of `clipmem demo`; the published studies take 100 epochs
_BATCH, _BATCHES = (8, 128), 4
_TRIES = 20


@dataclass(frozen=True)
class Start:
    """A recipe to start from."""

    recipe: Recipe
    notes: list[str]

    def text(self, heading: str) -> str:
        """Write the recipe with every key's meaning, below a heading and the notes."""
        head = [f"# {visible(line)}".rstrip() for line in (heading, *self.notes)]
        return "\n".join(head) + "\n\n" + dump_recipe(self.recipe, comments=True)


def bare(protocol: str = "four-way", *, source: str = "", settings: Sequence[str] = ()) -> Start:
    """Return the recipe of the defaults, which runs on the shipped emoji until `data.path` is set."""
    own = [f"protocol={protocol}", *([f"data.source={source}"] if source else [])]
    return Start(
        load_recipe("", [*own, *settings], origin="--set"),
        [
            "Set data.path to your data, and the sizes in [split] to what they have; or let this file be written for",
            "them: clipmem init FILE --data PATH. Without a path the study is made of the emoji in the package.",
        ],
    )


def preset(name: str, settings: Sequence[str] = ()) -> Start:
    """Return a shipped recipe, as it is but for the settings."""
    return Start(find_recipe(name, settings), [])


def start(
    path: str,
    *,
    protocol: str = "four-way",
    source: str = "",
    settings: Sequence[str] = (),
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> Start:
    """Look through data and write a recipe for them."""
    own = [setting for setting in settings if setting.startswith("data.")]
    section, reason = find_data(path, source=source, settings=own)
    opened = open_source(section)
    pairs = opened.pairs()
    order = opened.storage_order(pairs["image"].to_list())
    looked = look_at(opened, pairs, order, full=False, progress=progress)
    usable, groups = _usable(pairs.height, looked), _groups(pairs["group"].to_list(), looked)
    sizes = _fitting(pairs["uid"].to_list(), groups, usable)
    batch, epochs = training_of(sizes["shared"] + sizes["candidate"])
    columns = opened.columns
    named = {"image_column": columns.image, "caption_column": columns.captions} if columns else {}
    chosen = [
        f"protocol={protocol}",
        *(f"split.{role}={size}" for role, size in sizes.items()),
        f"leave_one_out.pairs={min(30, sizes['candidate'])}",
        f"train.batch_size={batch}",
        f"train.epochs={epochs}",
    ]
    recipe = load_recipe("", [*chosen, *(one for one in settings if one not in own)], origin="--set")
    data = section.model_copy(update=named).model_dump()
    recipe = recipe_from(recipe.model_dump() | {"data": data})  # with the table that the source brings
    drawn = {role: int(getattr(recipe.split, role)) for role in ROLES}
    captions = pairs["captions"].list.len()
    left_out = opened.ledger.left_out + len(looked.broken)
    per_pair = " to ".join(f"{n}" for n in sorted({int(captions.min() or 1), int(captions.max() or 1)}))  # pyright: ignore[reportArgumentType]
    return Start(
        recipe,
        [
            f"data      {section.source} ({reason})",
            f"pairs     {pairs.height:,}, {left_out:,} records left out; {looked.tried:,} images were decoded",
            f"captions  {per_pair} a pair; train.captions = 1 uses the first one, in training and in the scores",
            f"roles     {', '.join(f'{role} {size:,}' for role, size in drawn.items())}; "
            f"{pairs.height - sum(drawn.values()):,} pairs are spare, for images",
            "          that do not decode and for near-duplicates, which are kept in one role",
            *_training_notes(recipe, (batch, epochs)),
        ],
    )


def _training_notes(recipe: Recipe, ruled: tuple[int, int]) -> list[str]:
    """Say how long the models train, and why unless the user set it."""
    batch, epochs = recipe.train.batch_size, recipe.train.epochs
    passes = f"training  {epochs} {'epoch' if epochs == 1 else 'epochs'} in batches of {batch}"
    if (batch, epochs) != ruled:
        return [f"{passes}, as set"]
    return [
        f"{passes}: about as many steps as the demo's models take, in {_EPOCHS[0]} to {_EPOCHS[1]} epochs;",
        "          more epochs memorize more (the published studies take 100)",
    ]


def sizes_of(usable: int) -> dict[str, int]:
    """Return the sizes of the four roles for a number of usable pairs: the proportions of the shipped recipe."""
    shipped = SplitSection()  # pyright: ignore[reportCallIssue]
    total = shipped.shared + shipped.candidate + shipped.independent + shipped.external
    used = int(_USED * usable)
    one = min(used * shipped.candidate // total, _MOST["candidate"])
    return {"shared": min(used - 3 * one, _MOST["shared"])} | dict.fromkeys(ROLES[1:], one)


def training_of(pairs: int) -> tuple[int, int]:
    """Return batch size and epochs for a number of training pairs."""
    low, high = _BATCH
    batch = min(high, max(low, 2 ** ((pairs // _BATCHES).bit_length() - 1)))
    return batch, min(_EPOCHS[1], max(_EPOCHS[0], round(_STEPS / -(-pairs // batch))))


def _usable(n: int, looked: Looked) -> int:
    """Return how many of `n` pairs have an image that decodes: exactly where all were tried, else at least."""
    if looked.tried >= n:
        return n - len(looked.broken)
    # none of T broken still allows 3 in T at 95 % confidence
    return int(n * (1 - (len(looked.broken) + 3) / max(looked.tried, 4)))


def _groups(groups: list[str], looked: Looked) -> list[str]:
    """Join the groups of images that are near-duplicates in the sample."""
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    first: dict[str, str] = {}
    for row, near in zip(looked.decoded, looked.near, strict=False):
        own, other = root(groups[row]), root(first.setdefault(near, groups[row]))
        if own != other:
            joined[own] = other
    return [root(name) for name in groups]


def _fitting(uids: list[str], groups: list[str], usable: int) -> dict[str, int]:
    """Return the largest sizes that whole groups add up to."""
    asked = usable
    for _ in range(_TRIES):
        if asked < FEWEST:
            break
        sizes = sizes_of(asked)
        try:
            assign_roles(uids, groups, sizes, seed=0)
        except InputError:
            asked = int(0.9 * asked)
            continue
        return sizes
    largest = max(Counter(groups).values()) if asked < usable else 1
    grouped = f", in groups that are too large to divide, such as one of {largest:,}" if largest > 1 else ""
    got, hint = f"{usable:,} usable pairs{grouped}", "Add pairs; `clipmem data inspect PATH` lists what was left out."
    raise InputError("--data", got=got, expected=f"{FEWEST} or more for a study", hint=hint)
