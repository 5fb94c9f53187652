r"""Small examples of what `clipmem.data` has inside; pytest runs them.

`clipmem.data.views`:

    >>> from clipmem.data.views import *
    >>> drawn = draw_colors(np.array([7], dtype=np.uint64), seed=1, strength=0.0, gray=0.0, blur=1.0)
    >>> drawn.jitter.item(), drawn.gray.item(), drawn.blur.item()
    (False, False, True)
    >>> adjust_brightness(torch.full((1, 3, 1, 1), 0.5), torch.tensor([0.5])).flatten().tolist()
    [0.25, 0.25, 0.25]
    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([1 / 3])).flatten().round(decimals=5).abs().tolist()
    [0.0, 1.0, 0.0]
    >>> kernel_size(224), kernel_size(64), kernel_size(32)
    (23, 7, 3)

`clipmem.data.decoding`:

    >>> from clipmem.data.decoding import *
    >>> stream = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(stream, "PNG")
    >>> read_header(stream.getvalue())
    Header(format='PNG', width=40, height=30)

`clipmem.data.duplicates`:

    >>> from clipmem.data.duplicates import *
    >>> ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (1, 16, 16, 3))
    >>> print(f"{difference_hash(ramp)[0]:x}, {difference_hash(ramp.swapaxes(1, 2))[0]:x}")
    ffffffffffffffff, 0
    >>> [block.tolist() for block in near_pairs(np.array([0, 255, 1], dtype=np.uint64), distance=1)]
    [[[0, 2]]]
    >>> image = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    >>> a, b, c = duplicate_groups(np.concatenate([image[:2], image[:1]]))
    >>> a == c != b
    True

`clipmem.data.views`:

    >>> from clipmem.data.views import *
    >>> caption_edits("red square", "00" * 16, count=3) == caption_edits("red square", "00" * 16, count=3)
    True
    >>> caption_edits("a", "00" * 16, count=3)
    []
    >>> edits_of_single([["a cat", "the cat"], ["ox"]], ["00" * 16, "01" * 16], count=1)[1]
    [1]
    >>> text_views(["a cat", "the cat"], "00" * 16, count=5)
    ('a cat', ['the cat'])

`clipmem.data.user_tables`:

    >>> from clipmem.data.user_tables import *
    >>> csv_cell("=cmd()"), csv_cell("a=b"), csv_cell(" +1"), csv_cell("a\x00b")
    ("'=cmd()", 'a=b', "' +1", 'a\\x00b')
    >>> datacomp_array(["f" * 16 + "0" * 15 + "1", "0" * 32]).tolist()
    [(0, 0), (18446744073709551615, 1)]

`clipmem.data.inspection`:

    >>> from clipmem.data.inspection import *
    >>> runs(12, 4, run=2), runs(3, 4, run=2)
    ([0, 1, 6, 7], [0, 1, 2])

`clipmem.data.user_tables`:

    >>> from clipmem.data.user_tables import *
    >>> split_objects("cat, sofa,cat"), split_objects(None)
    (['cat', 'sofa'], [])
    >>> text_of(float("nan")), text_of(None), text_of(1.5)
    ('', '', '1.5')
    >>> object_lists(pl.Series("objects", ["cat, sofa,cat", None, ""]))
    [['cat', 'sofa'], [], []]

`clipmem.data.skipped`:

    >>> from clipmem.data.skipped import *
    >>> records_sentence({"read": 9, "pairs": 5, "merged": 3, "left_out": 1, "unnamed": 2, "ignored": {".pdf": 1}})
    '9 records read: 5 pairs, 3 merged into the pair of their image, 1 left out; 2 images that no record names'
    >>> ignored_sentence({".cls": 12, ".npy": 1})
    '13 other files or members ignored: .cls 12, .npy 1'
    >>> left_out_sentence(Records(used=988, problems=12, reasons={"truncated image": 7, "empty file": 5}))
    '12 problems, 988 pairs used: 7 truncated image, 5 empty file'

`clipmem.data.sources.records`:

    >>> from clipmem.data.sources.records import *
    >>> chosen(("filepath", "Title"), "captions", "caption_column")
    'Title'

`clipmem.data.sources.folders`:

    >>> from clipmem.data.sources.folders import *
    >>> caption_lines(b"a cat\n\na dog\r\n")
    ['a cat', 'a dog']

`clipmem.data.sources.records`:

    >>> from clipmem.data.sources.records import *
    >>> listed_captions("a"), listed_captions([{"raw": "a", "tokens": ["a"]}, "b", None]), listed_captions(None)
    (['a'], ['a', 'b', None], [])
    >>> caption_problem(" "), caption_problem(float("nan")), caption_problem("a cat")
    ('empty caption', 'caption is NaN', '')

`clipmem.data.sources.rows`:

    >>> from clipmem.data.sources.rows import *
    >>> import json
    >>> features = {"info": {"features": {"kind": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    >>> told = pa.schema([("kind", pa.int64())], metadata={"huggingface": json.dumps(features)})
    >>> label_names(told, "kind")
    ['cat', 'dog']

`clipmem.data.sources.csv_table`:

    >>> from clipmem.data.sources.csv_table import *
    >>> header_columns("filepath\ttitle", DataSection())
    ('\t', ['filepath', 'title'])

`clipmem.data.sources.webdataset`:

    >>> from clipmem.data.sources.webdataset import *
    >>> split_name("a.b/000.seg.PNG")
    ('a.b/000', 'seg.png')
    >>> expand("a-{08..10}.tar::b.tar"), expand("{x,y}.tar")
    (['a-08.tar', 'a-09.tar', 'a-10.tar', 'b.tar'], ['x.tar', 'y.tar'])

`clipmem.data.splits`:

    >>> from clipmem.data.splits import *
    >>> sizes = {"shared": 2, "candidate": 1, "independent": 1, "external": 1}
    >>> roles = assign_roles(list("abcde"), ["g", "g", "x", "y", "z"], sizes, seed=0)
    >>> roles[0] == roles[1] == "shared", sorted(roles[2:])
    (True, ['candidate', 'external', 'independent'])
    >>> planted = plant_captions(["a", "b", "c", "d"], 3, seed=0)
    >>> sorted(planted) == sorted(planted.values()), any(uid == other for uid, other in planted.items())
    (True, False)
    >>> section = SplitSection(shared=1, candidate=2, independent=2, external=2, planted=2)
    >>> table = split_table(list("gfedcba"), list("1234567"), section)
    >>> table["uid"].to_list(), table["planted"].sum()
    (['a', 'b', 'c', 'd', 'e', 'f', 'g'], 2)

`clipmem.data.views`:

    >>> from clipmem.data.views import *
    >>> send(torch.arange(3), "cpu").tolist()
    [0, 1, 2]
"""
