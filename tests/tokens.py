"""Small tokenizers of the kinds that CLIP, SigLIP and SigLIP 2 have, made here and saved as their own libraries do."""

import io
import json

TEXT = "a photo of the red cat and two dogs on green grass under blue sky with one small bird near water"


def _alphabet():
    """Return the printable stand-ins of all 256 bytes, in byte order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]


def clip(folder):
    """Write byte-pair tables as `openai/clip-vit-base-patch32` has them, with two merges."""
    letters = _alphabet()
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o")]
    names = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: k for k, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(names)


def siglip(folder, *, masked=False):
    """Write a sentencepiece model as `google/siglip-base-patch16-224` has it."""
    import sentencepiece

    stream, texts = io.BytesIO(), [TEXT[k:] + " " + TEXT[:k] for k in range(0, len(TEXT), 3)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=stream,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
    )
    (folder / "spiece.model").write_bytes(stream.getvalue())
    config = {
        "tokenizer_class": "SiglipTokenizer",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "do_lower_case": True,
        "model_max_length": 64,
    }
    if not masked:
        config["model_input_names"] = ["input_ids"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return 100


def gemma(folder, *, kind="GemmaTokenizer", masked=False):
    """Write a byte-fallback vocabulary as SigLIP 2 has it, ending every caption with <eos>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyzABC"]
    vocabulary = {name: k for k, name in enumerate(names)}
    merges = [("c", "a"), ("ca", "t"), ("▁", "d")]
    vocabulary |= {"".join(pair): len(names) + k for k, pair in enumerate(merges)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    if kind == "Siglip2Tokenizer":
        made.normalizer = normalizers.Sequence([normalizers.Lowercase(), made.normalizer])
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": kind,
        "add_bos_token": False,
        "add_eos_token": True,
        "padding_side": "right",
        "model_max_length": 64,
        **{f"{name.strip('<>')}_token": name for name in special},
    }
    if not masked:
        config["model_input_names"] = ["input_ids"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def clip_model(config, tokenizer, *, seed):
    """Return an encoder on a CLIPModel of transformers with fresh weights that depend on the seed alone."""
    import torch
    import transformers

    from clipmem.models.transformers import TransformersEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.CLIPModel(transformers.CLIPConfig(**config))
    return TransformersEncoder(model.eval(), tokenizer)
