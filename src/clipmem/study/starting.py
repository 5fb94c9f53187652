"""`clipmem init --data`: a recipe for the user's data, with role sizes and training for their number."""

from collections import Counter
from dataclasses import dataclass

from clipmem.base.errors import InputError
from clipmem.base.recipes import Overrides, Recipe, as_settings, dump_recipe, load_recipe, recipe_from
from clipmem.base.sections import SplitSection
from clipmem.data.inspection import ImageSample, sample_images
from clipmem.data.sources import Data, open_data
from clipmem.data.splits import ROLES, assign_roles
from clipmem.data.user_tables import roles_of
from clipmem.report.formats import count, visible
from clipmem.study.api import find_recipe

FEWEST = 50  # pairs: enough for a test with four or five pairs in each measured role
_USED = 0.95
_MOST = {"shared": 65_000, "candidate": 5_000}  # as in the published studies
_STEPS, _EPOCHS = 432, (10, 100)  # enough for the shipped emoji; the published studies take 100 epochs
_BATCH, _BATCHES = (8, 128), 4
_TRIES = 20
_NO_DATA = [
    "Set data.path to your data and the sizes in [split] to fit them, or write this file with",
    "clipmem init FILE --data PATH. Without a path, the study uses the shipped emoji.",
]


@dataclass(frozen=True)
class Start:
    """A recipe to start from."""

    recipe: Recipe
    notes: list[str]

    def text(self, heading: str) -> str:
        """Return the recipe as TOML with comments, after a heading and the notes."""
        head = [f"# {visible(line)}".rstrip() for line in (heading, *self.notes)]
        return "\n".join(head) + "\n\n" + dump_recipe(self.recipe, comments=True)


def start(
    data: Data | None = None,
    *,
    protocol: str = "four-way",
    source: str = "",
    settings: Overrides = (),
    preset: str = "",
) -> Start:
    """Inspect data and return a recipe for them: the shipped recipe `preset`, or the default one.

    Without data, the recipe is not adapted; the default one uses the shipped emoji.
    """
    settings = as_settings(settings)
    if data is None:
        if preset:
            return Start(find_recipe(preset, settings), [])
        changes = [f"protocol={protocol}", *([f"data.source={source}"] if source else []), *settings]
        return Start(load_recipe("", changes, origin="--set"), _NO_DATA)
    of_data = [setting for setting in settings if setting.startswith("data.")]
    opened = open_data(data, {"source": source}, settings=of_data)
    section, pairs = opened.section, opened.pairs()
    order = opened.storage_order(pairs["image"].to_list())
    sample = sample_images(opened, pairs, order, full=False)
    if section.role_column:
        counts = Counter(role for row, role in enumerate(roles_of(pairs)) if row not in sample.broken)
        sizes = {role: counts[role] for role in ROLES}
    else:
        groups = _groups(pairs["group"].to_list(), sample)
        n, broken = pairs.height, len(sample.broken)
        # exact if all were decoded, else by the rule of three: 95% upper bound of the rate of broken images
        usable = n - broken if sample.tried >= n else int(n * (1 - (broken + 3) / max(sample.tried, 4)))
        sizes = _fitting(pairs["uid"].to_list(), groups, usable)
    ruled = batch, epochs = training_of(max(1, sizes["shared"] + sizes["candidate"]))
    if preset:
        epochs = find_recipe(preset).train.epochs
    columns = opened.columns
    named = {"image_column": columns.image, "caption_column": columns.captions} if columns else {}
    changes = [
        f"protocol={protocol}",
        *(f"split.{role}={size}" for role, size in sizes.items()),
        f"leave_one_out.pairs={min(30, sizes['candidate'])}",
        f"train.batch_size={batch}",
        f"train.epochs={epochs}",
    ]
    changes += [setting for setting in settings if setting not in of_data]
    recipe = find_recipe(preset, changes) if preset else load_recipe("", changes, origin="--set")
    data = section.model_copy(update=named).model_dump()
    recipe = recipe_from(recipe.model_dump() | {"data": data})  # with the source's own table
    role_sizes = {role: int(getattr(recipe.split, role)) for role in ROLES}
    captions = sorted({len(texts) or 1 for texts in pairs["captions"]})
    per_pair = " to ".join(map(str, dict.fromkeys((captions[0], captions[-1]))))
    reserve = f"; {opened.ledger.pairs - sum(role_sizes.values()):,} pairs in reserve"
    batch, epochs = recipe.train.batch_size, recipe.train.epochs
    return Start(
        recipe,
        [
            f"data      {section.source} ({opened.reason})",
            f"pairs     {opened.ledger.pairs:,}, {count(opened.ledger.left_out, 'record')} left out; "
            f"{sample.tried:,} images were decoded",
            f"captions  {per_pair} per pair; train.captions = 1 uses the first one",
            f"roles     {', '.join(f'{role} {size:,}' for role, size in role_sizes.items())}"
            + (", as in data.role_column" if section.role_column else reserve),
            f"training  {count(epochs, 'epoch')} in batches of {batch}{'' if (batch, epochs) == ruled else ', as set'}",
        ],
    )


def sizes_of(usable: int) -> dict[str, int]:
    """Return the sizes of the four roles for a number of usable pairs, in the default proportions."""
    shipped = SplitSection()
    total = shipped.shared + shipped.candidate + shipped.independent + shipped.external
    used = int(_USED * usable)
    candidates = min(used * shipped.candidate // total, _MOST["candidate"])
    return {"shared": min(used - 3 * candidates, _MOST["shared"])} | dict.fromkeys(ROLES[1:], candidates)


def training_of(pairs: int) -> tuple[int, int]:
    """Return batch size and epochs for a number of training pairs."""
    low, high = _BATCH
    batch = min(high, max(low, 2 ** ((pairs // _BATCHES).bit_length() - 1)))
    return batch, min(_EPOCHS[1], max(_EPOCHS[0], round(_STEPS / -(-pairs // batch))))


def _groups(groups: list[str], sample: ImageSample) -> list[str]:
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    first: dict[str, str] = {}
    for row, near in zip(sample.decoded, sample.near, strict=False):
        group, other = root(groups[row]), root(first.setdefault(near, groups[row]))
        if group != other:
            joined[group] = other
    return [root(name) for name in groups]


def _fitting(uids: list[str], groups: list[str], usable: int) -> dict[str, int]:
    total = usable
    for _ in range(_TRIES):
        if total < FEWEST:
            break
        sizes = sizes_of(total)
        try:
            assign_roles(uids, groups, sizes, seed=0)
        except InputError:
            total = int(0.9 * total)
            continue
        return sizes
    largest = max(Counter(groups).values()) if total < usable else 1
    grouped = f", in groups of up to {largest:,} that cannot be divided" if largest > 1 else ""
    got, hint = f"{usable:,} usable pairs{grouped}", "Add pairs, or see why records are left out: `clipmem inspect`."
    raise InputError("--data", got=got, expected=f"{FEWEST} or more for a study", hint=hint)
