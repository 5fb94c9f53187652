r"""Small examples of what `clipmem.mitigate` has inside; pytest runs them.

`clipmem.mitigate.captions`:

    >>> from clipmem.mitigate.captions import *
    >>> section = CaptionVariantsSection(kinds=("reorder",), count=3)
    >>> variants_of(["red, green", "a cat"], section)
    {'red, green': [('reorder', 'green, red')], 'a cat': []}
    >>> choose_variant(np.array([0.9, 0.1, 0.3]), np.array([2, 2, 2]), 0.4).tolist()
    [-1, 0, 1]

`clipmem.mitigate.noise`:

    >>> from clipmem.mitigate.noise import *
    >>> keys = np.arange(3, dtype=np.uint64)
    >>> bool((gaussian(keys, 1, 4)[1:] == gaussian(keys[1:], 1, 4)).all())
    True

`clipmem.mitigate.regroup`:

    >>> from clipmem.mitigate.regroup import *
    >>> laid = regroup([np.array([3, 0]), np.array([1, 2])], np.array([9.0, 1, 8, 2]), share=0.5, seed=0, epoch=0)
    >>> sorted(sorted(batch.tolist()) for batch in laid)
    [[0, 2], [1, 3]]

`clipmem.mitigate.captions`:

    >>> from clipmem.mitigate.captions import *
    >>> make_variants("a cat", {"loud": lambda text, number, seed: text + "!" * number}, count=2, seed=0)
    [('loud', 'a cat!'), ('loud', 'a cat!!')]
"""
