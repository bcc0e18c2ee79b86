"""A translator: a model that writes token by token, beam search, its attention, and its folder.

    translator = load(Path("runs/translation/<run>"))
    translator(["forty-eight thousand two hundred thirteen"], beam=4)       # ["사만 팔천이백십삼"]

The command `translation` trains one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from experiments.sequences.byte_pairs import BOS, EOS, PAD, SPECIAL, clean, load_bpe
from experiments.sequences.text_pictures import AttentionMap
from rlkit.checkpoint import save_agent
from rlkit.data import padded
from rlkit.nn.language import EncoderDecoder
from rlkit.nn.recurrent import RecurrentTranslator
from rlkit.nn.transformer import Attention, Past, Shape
from rlkit.runtime import evaluating
from rlkit.saved_agents import load_agent_files, rebuild, rebuilding

Model = RecurrentTranslator | EncoderDecoder

# -- writing token by token --------------------------------------------------------------------------------------------


def network(config: Mapping[str, Any], vocabulary: int) -> Model:
    """An untrained model; config: the settings named in FIELDS."""
    if config["model"] == "transformer":
        names = ("channels", "heads", "layers", "hidden", "dropout")
        return EncoderDecoder(vocabulary, config["context"], Shape(**{name: config[name] for name in names}))
    attention = config["attention"] if config["model"] == "attention" else None
    sizes = (vocabulary, vocabulary)
    return RecurrentTranslator(sizes, config["channels"], config["kind"], attention, config["dropout"])


class Decoding:
    """Translations under way: R rows, each with its source sentence and the model's state after its tokens."""

    def __init__(self, model: Model, source: Tensor):
        self.model = model
        self.encoded: tuple[Tensor, ...] = model.encode(source)
        self.state: Any = model.begin(self.encoded) if isinstance(model, RecurrentTranslator) else Past()

    def step(self, token: Tensor) -> Tensor:
        """Logits [R, V] of what follows token [R]."""
        if isinstance(self.model, RecurrentTranslator):
            logits, self.state, _ = self.model.step(token, self.state, self.encoded)
            return logits
        return self.model.decode(token[:, None], self.encoded, self.state)[:, 0]  # type: ignore[arg-type]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows [R'], in this order."""
        self.encoded = tuple(part[rows] for part in self.encoded)
        if isinstance(self.state, Past):
            self.state.select(rows)
        else:
            self.state = tuple(part[rows] for part in self.state)


def beam_search(
    decoding: Decoding,
    longest: Sequence[int],
    beam: int = 1,
    length_power: float = 1.0,
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """The best translation found of each sentence, without <eos>; of `longest` tokens at most.

    At each token the `beam` best of a sentence go on, by log-probability / tokens ** length_power; so a beam of 1 is
    greedy. One that has ended takes a place among them until better ones push it out, and can still be the best.
    `decoding` begins with a row for each sentence.
    """
    sentences = len(longest)
    limit = torch.tensor(longest, device=device)[:, None]
    firsts = torch.arange(sentences, device=device)[:, None] * beam
    if beam > 1:
        decoding.select(torch.arange(sentences, device=device).repeat_interleave(beam))
    text = torch.full((sentences * beam, 1), BOS, device=device)
    score = torch.full((sentences, beam), -torch.inf, device=device)
    score[:, 0] = 0.0  # at first all rows of a sentence are the same
    length = torch.zeros_like(score)
    ended = length.bool()
    found, found_score = text[::beam], torch.full((sentences,), -torch.inf, device=device)
    for step in range(1, max(longest) + 1):
        logits = decoding.step(text[:, -1]).float()
        logits[:, [PAD, BOS]] = -torch.inf
        logp = logits.log_softmax(1).unflatten(0, (sentences, beam)).masked_fill(ended[:, :, None], -torch.inf)
        logp[:, :, PAD].masked_fill_(ended, 0.0)  # what has ended goes on with padding, which costs nothing
        total, length = score[:, :, None] + logp, length + ~ended
        best = (total / length[:, :, None] ** length_power).flatten(1).topk(beam).indices
        origin, token = best // logp.shape[2], best % logp.shape[2]
        score, length = total.flatten(1).gather(1, best), length.gather(1, origin)
        ended = ended.gather(1, origin) | (token == EOS) | (step >= limit)
        rows = (firsts + origin).flatten()
        text = torch.cat([text[rows], token.flatten()[:, None]], 1)
        whole, place = (score / length**length_power).masked_fill(~ended, -torch.inf).max(1)
        better = whole > found_score
        found_score = torch.where(better, whole, found_score)
        best_rows = text[firsts[:, 0] + place]
        found = torch.where(better[:, None], best_rows, F.pad(found, (0, 1), value=PAD))
        if ended.all():  # waits for the device
            break
        if beam > 1:
            decoding.select(rows)
    return [[token for token in row if token not in (PAD, EOS)] for row in found[:, 1:].tolist()]


# -- the translator ----------------------------------------------------------------------------------------------------

FIELDS = ("model", "kind", "attention", "channels", "heads", "layers", "hidden", "dropout", "context", "lowercase")
"""the settings that a translator is rebuilt from"""
AT_ONCE = 100
"""sentences written together"""


@dataclass
class Translator:
    """Sentences to sentences."""

    model: Model
    tokenizer: Tokenizer
    config: dict[str, Any]
    """the settings named in FIELDS"""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode(self, sentence: str) -> list[int]:
        """Its tokens and <eos>. Raises ValueError where it is empty or longer than the context."""
        sentence, context = clean(sentence, self.config["lowercase"]), self.config["context"]
        ids = [*self.tokenizer.encode(sentence).ids, EOS]
        if not sentence:
            raise ValueError("an empty sentence has no translation")
        if len(ids) > context:
            raise ValueError(
                f"a sentence of {len(ids)} tokens is longer than this translator's context of {context}: cut it, or"
                f" train with a larger --context ({sentence[:40]}...)"
            )
        return ids

    def _longest(self, source: Sequence[int] | Tensor) -> int:
        """Tokens of a translation at most: an untrained model does not know where to end."""
        return min(self.config["context"], 2 * len(source) + 20)

    def __call__(self, sentences: Sequence[str], beam: int = 1, length_power: float = 1.0) -> list[str]:
        """Their translations. Raises ValueError, as `encode`."""
        sources, out = [self.encode(sentence) for sentence in sentences], [""] * len(sentences)
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        for begin in range(0, len(order), AT_ONCE):
            rows = order[begin : begin + AT_ONCE]
            with evaluating(self.model):
                decoding = Decoding(self.model, padded([sources[i] for i in rows]).to(self.device))
                longest = [self._longest(sources[i]) for i in rows]
                written = beam_search(decoding, longest, beam, length_power, self.device)
            for i, ids in zip(rows, written, strict=True):
                out[i] = self.tokenizer.decode(ids).strip()
        return out

    def attention_map(self, sentence: str) -> AttentionMap | None:
        """Where each token of the greedy translation of a sentence looks; in a Transformer, the mean over the heads of
        its last layer. None for a model without attention.
        """
        with evaluating(self.model):
            source = torch.tensor([self.encode(sentence)], device=self.device)
            written = beam_search(Decoding(self.model, source), [self._longest(source[0])], device=self.device)[0]
            weights = self._weights(
                source, torch.tensor([[BOS, *written][: self.config["context"]]], device=self.device)
            )
        if weights is None:
            return None
        ends = [*written, EOS][: self.config["context"]]
        return self._labels(ends), self._labels(source[0].tolist()), weights.float().cpu().numpy()

    def _weights(self, source: Tensor, target: Tensor) -> Tensor | None:
        """Where each token of a target [1, M] looks in its source [1, N]: [M, N]."""
        model = self.model
        if isinstance(model, EncoderDecoder):
            cross: Attention = model.decoder.blocks[-1].cross  # type: ignore[assignment, union-attr]
            cross.watch = True
            model(source, target)
            assert cross.seen is not None
            weights = cross.seen[0].mean(0)
            cross.watch, cross.seen = False, None
            return weights
        if model.attention is None:
            return None
        encoded = model.encode(source)
        state, rows = model.begin(encoded), []
        for token in target.T:
            _, state, seen = model.step(token, state, encoded)
            rows.append(seen)
        return torch.cat(rows)  # type: ignore[arg-type]

    def _labels(self, ids: list[int]) -> list[str]:
        texts = (SPECIAL[i] if i < len(SPECIAL) else self.tokenizer.decode([i]).strip() for i in ids)
        return ["·" if "\ufffd" in text else text for text in texts]  # a part of a character

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write the agent's folder, with these entries about it in agent.json."""
        info = {"kind": "translator", "config": self.config, "tokenizer": self.tokenizer.to_str(), **about}
        save_agent(folder, info, self.model.state_dict())


def load(path: Path, device: torch.device | str = "cpu") -> Translator:
    """The translator of a run's or agent's folder.

    Raises FileNotFoundError, DamagedFile, and ValueError for an agent of another kind.
    """
    info, weights = load_agent_files(path, "translator", "no translator")
    with rebuilding(path, "a translator with these weights"):
        config = {name: info["config"][name] for name in FIELDS}
        tokenizer = load_bpe(info["tokenizer"], path)
        model = rebuild(lambda: network(config, tokenizer.get_vocab_size()), weights)
    return Translator(model.to(device).eval(), tokenizer, config)
