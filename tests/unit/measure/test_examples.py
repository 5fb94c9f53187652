r"""Small examples of what `clipmem.evaluate` has inside; pytest runs them.

`clipmem.measure.zero_shot`:

    >>> from clipmem.measure.zero_shot import *
    >>> class_ranks(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0, 1])).tolist()
    [1.0, 1.5]
    >>> classification_metrics(np.array([1.0, 2.0, 1.0]), np.array([0, 0, 1]), 2)
    {'acc1': 0.6666666666666666, 'mean_per_class_recall': 0.75}
    >>> chance(4)
    {'acc1': 0.25, 'mean_per_class_recall': 0.25}

`clipmem.measure.dejavu`:

    >>> from clipmem.measure.dejavu import *
    >>> object_matrix([["cat"], ["sofa", "cat"]]).tolist()
    [[True, False], [True, True]]

`clipmem.measure.hypersphere`:

    >>> from clipmem.measure.hypersphere import *
    >>> alignment_distances(torch.eye(2)[:, None], torch.tensor([[1.0, 0.0], [0.0, -9.0]]), torch.arange(2)).tolist()
    [0.0, 4.0]
    >>> float(np.log(potentials(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])).mean()))
    -8.0

`clipmem.measure.retrieval`:

    >>> from clipmem.measure.retrieval import *
    >>> identity_of(["a" * 32, "a" * 16 + "b" * 16], [["A  cat"], ["a cat", "dog"]])
    Identity(image=array([0, 0]), text=array([0, 0, 1]))
    >>> concepts_of(["Cat", "dog"], np.array([True, True]), ["cat", "Cat", "dog"])
    (['cat', ''], {'cat': ['Cat']})
    >>> dependent_groups(np.array([5, 5, 7, 8]), Identity(np.arange(4), np.array([0, 1, 1, 2])), np.arange(4)).tolist()
    [0, 0, 0, 1]

`clipmem.measure.linear_probe`:

    >>> from clipmem.measure.linear_probe import *
    >>> fitted = fit(np.array([[-1.0], [1.0]]), np.array([3, 7]), 1.0)
    >>> fitted.ranks(np.array([[2.0]]), np.array([7])).tolist()
    [1.0]
    >>> part = validation_part(np.array([4, 4, 5, 5]), 0.5, seed=0)
    >>> part.tolist() in ([True, True, False, False], [False, False, True, True])
    True
    >>> x, y = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]]), np.array([0, 0, 1, 1])
    >>> linear_probe((x, y), np.arange(4), (x, y), seed=0).ranks.tolist()
    [1.0, 1.0, 1.0, 1.0]

`clipmem.measure.over_seeds`:

    >>> from clipmem.measure.over_seeds import *
    >>> class_mean(np.array([[1.0, 1.0, 0.0]]), np.array([0, 0, 1]), np.array([7, 7, 7]))
    Interval(mean=0.5, low=None, high=None, over='pairs')

`clipmem.measure.zero_shot`:

    >>> from clipmem.measure.zero_shot import *
    >>> make_prompts(["hot-dog", "cat"], None, ["a {}"]).texts
    ['a cat', 'a hot dog']

`clipmem.measure.retrieval`:

    >>> from clipmem.measure.retrieval import *
    >>> found = retrieve(torch.eye(3), torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]), ks=(1,))
    >>> found.metrics["text_retrieval_median_rank"], found.image.rank.tolist()
    (1.5, [1.0, 1.0, 2.5])
    >>> chance(np.array([1, 1]), 2)["recall@1"], chance(np.array([2, 1]), 3)["recall@1"]
    (0.5, 0.5)
    >>> chance(np.array([2, 2]), 4)["recall@5"], chance(np.array([1]), 2)["mAP"]
    (1.0, 0.75)

`clipmem.measure.utility`:

    >>> from clipmem.measure.utility import *
    >>> class_numbers(["b", "", "a"], ["a", "b"]).tolist()
    [1, -1, 0]

`clipmem.measure.zero_shot`:

    >>> from clipmem.measure.zero_shot import *
    >>> class_embeddings(torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 1.0]]), torch.tensor([0, 1, 1]), 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> zero_shot_ranks(torch.eye(2), torch.tensor([[1.0, 0.1], [0.0, 1.0]]), np.array([0, 0])).tolist()
    [1.0, 2.0]
"""
