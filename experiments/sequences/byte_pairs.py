"""Sentences as tokens: byte pairs, learned from a text and kept as JSON."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rlkit.errors import DamagedFile

PAD, BOS, EOS = 0, 1, 2
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
LEAST_VOCABULARY = len(SPECIAL) + 256


def clean(sentence: str, lowercase: bool) -> str:
    """Composed characters (a Hangul syllable can be written as its letters too), no space at the ends."""
    sentence = unicodedata.normalize("NFC", sentence).strip()
    return sentence.lower() if lowercase else sentence


def learn_bpe(sentences: Iterable[str], size: int) -> Tokenizer:
    """Byte pairs (Sennrich et al. 2016) of sentences, over bytes: no character is unknown. Same text, same pairs."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # the first word is like any other
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return load_bpe(tokenizer.to_str())


def load_bpe(text: str, where: Path | str = "") -> Tokenizer:
    """From the JSON text of `to_str`. Raises DamagedFile, which says where it was read."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # it raises plain ones
        raise DamagedFile(f"{where} holds no byte pairs: {error}") from error
    tokenizer.encode_special_tokens = True  # "<pad>" in a sentence is five characters
    return tokenizer
