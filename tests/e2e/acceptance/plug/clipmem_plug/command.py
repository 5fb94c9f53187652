"""A command: how long the captions of a data set are."""

from clipmem import load_pairs


def caption_words(data: str, /) -> None:
    """Print the mean number of words of captions.

    Args:
        data: A file, folder or shards, as in data.path of a recipe.
    """
    words = load_pairs(data).pairs()["captions"].explode().str.split(" ").list.len()
    print(f"{words.mean():.2f} words")  # noqa: T201
