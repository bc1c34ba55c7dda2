"""The tokenizer of the small segmenter: byte-level BPE in lower case, trained on the words it will read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_sal.tasks import SEMANTIC

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as BEiT-3's own tokenizer has them


def build_word_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> Any:
    """A `PreTrainedTokenizerFast` for which every frequent word of `texts` is one token and any text encodes.

    Every byte is a token, so nothing is unknown. `[semantic]` is one added token, and each text becomes `<s> ... </s>`.

    Args:
        texts: Expressions to learn the words from.
        vocab_size: Most tokens, the 256 bytes and the special ones included, `[semantic]` not.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # pyright: ignore[reportAttributeAccessIssue]
    bpe.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((text.replace(SEMANTIC, " ") for text in texts), trainer)
    bpe.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    bos, pad, eos, unk = SPECIAL
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=bos, pad_token=pad, eos_token=eos, unk_token=unk, padding_side="right"
    )
    tokenizer.add_tokens([AddedToken(SEMANTIC, special=False, normalized=False)])
    return tokenizer
