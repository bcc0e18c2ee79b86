"""The networks of an agent's folder as functions of named arrays, for `export`: by the kind in its agent.json."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from rlkit.nn.recurrent import STEPS
from rlkit.saved_agents import load_agent_files, rebuilding

Info = dict[str, Any]
BATCH = Dim("batch")


@dataclass
class Array:
    """What goes into a network: its name, its sizes (a number, or a Dim for what may vary), its dtype, and for whole
    numbers the first one that is too large.
    """

    name: str
    sizes: tuple[Any, ...]
    dtype: torch.dtype = torch.float32
    high: int = 256


class Network(nn.Module):
    """A function of arrays and of a module's weights, with names for what goes in and comes out.

    Args:
        call: (*arrays) -> a tensor or several, by the weights of `module` in evaluation; default: the module itself.
        about: what else its users have to know, by name.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: list[Array],
        outputs: list[str],
        call: Callable[..., Any] | None = None,
        about: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.module, self.call = module.eval().requires_grad_(False), call
        self.inputs, self.outputs, self.about = inputs, outputs, about or {}

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        out = (self.call or self.module)(*arrays)
        return out if isinstance(out, tuple) else (out,)


def networks(path: str | Path) -> tuple[Info, dict[str, Network]]:
    """(agent.json, the networks by name) of a run or agent folder, or of `alphazero:NAME`; the name of an only one is
    empty. Raises FileNotFoundError, DamagedFile, and ValueError for an agent without a network.
    """
    from experiments.go.players import agent_folder
    from experiments.sequences.reader import reader_folder

    if str(path).partition(":")[0] in ("random", "mcts", "gnugo", "gtp"):
        raise ValueError(f"{path} has no network to export: name a run or agent folder")
    found = agent_folder(str(path))
    folder = reader_folder(str(found.folder if found else path))
    info, _ = load_agent_files(folder)
    if info.get("kind") not in KINDS:
        raise ValueError(
            f"{path} holds an agent of kind {info.get('kind')!r}, which has no network to export; these have: "
            + ", ".join(KINDS)
        )
    return info, KINDS[info["kind"]](folder)


# -- worlds of one player ----------------------------------------------------------------------------------------------


def observations(agent: Any, info: Info) -> Array:
    """What an agent acts by. Planes of a gymnasium world, whole numbers there, and vectors are float32."""
    shape, options = agent.obs_shape, info["env"].get("options", {})
    in_colour = len(shape) == 4 and shape[1] == 3 and options.get("colour")
    return Array("obs", (BATCH, *shape), torch.uint8 if len(shape) == 3 or in_colour else torch.float32)


def q_network(folder: Path) -> dict[str, Network]:
    """Of a DQN with all that came after it, or a PQN: obs -> q [batch, actions]."""
    from experiments.any_agent import load_agent

    agent = load_agent(folder)
    info = agent.info
    about = {}
    if getattr(agent.cfg, "distribution", "") == "iqn":
        from agents.rainbow.network import ACTING_QUANTILES

        about["tau"] = f"q is the mean of {ACTING_QUANTILES} quantiles, at the middles of equal parts of 0 .. 1"
    return {"": Network(agent.network, [observations(agent, info)], ["q"], about=about)}


CORE_STATES = {"none": (), "rnn": ("h",), "gru": ("h",), "lstm": ("h", "c"), "transformer": ("keys", "values", "known")}
"""core -> names of what it remembers"""


def states(names: tuple[str, ...], first: tuple[Tensor, ...]) -> tuple[list[Array], list[str], dict[str, str]]:
    """(the inputs, the outputs, what to know) of a core's state, which begins as `first`."""
    inputs = [Array(name, (BATCH, *part.shape[1:]), part.dtype) for name, part in zip(names, first, strict=False)]
    how = f"{', '.join(names)} are zeros at the beginning, and then next_{', next_'.join(names)} of the call before"
    return inputs, [f"next_{name}" for name in names], {"state": how} if names else {}


def recurrent_q_network(folder: Path) -> dict[str, Network]:
    """One step of a DQN with a memory: (obs, its state) -> (q [batch, actions], its next state)."""
    from experiments.any_agent import load_agent

    agent = load_agent(folder)
    info = agent.info
    network: Any = agent.network
    inputs, outputs, about = states(CORE_STATES[agent.cfg.backbone], network.core.initial_state(1))

    def step(obs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        q, state = network(obs[:, None], state)
        return q[:, 0], *state

    return {"": Network(network, [observations(agent, info), *inputs], ["q", *outputs], step, about)}


# -- boards ------------------------------------------------------------------------------------------------------------


def board_network(folder: Path) -> dict[str, Network]:
    """An AlphaZero's: planes -> policy_logits, value and the other heads; of any size, but where it has a bias for each
    point.
    """
    from experiments.any_agent import load_agent

    agent = load_agent(folder)
    network, config = agent.network, agent.network.config
    fixed = config["backbone"] == "alphago"
    sizes = (config["size"],) * 2 if fixed else (Dim("height"), Dim("width"))
    names = {"policy": "policy_logits", "value": "value"}
    names |= {name: f"{name}_logits" if name == "reply" else name for name in config["heads"]}

    def heads(planes: Tensor) -> tuple[Tensor, ...]:
        out = network(planes)
        return tuple(out[name] for name in names)

    planes = Array("planes", (BATCH, config["planes"], *sizes), torch.uint8, 2)
    return {"": Network(network, [planes], list(names.values()), heads)}


def alphago_networks(folder: Path) -> dict[str, Network]:
    """Those of AlphaGo's parts that are there: policy, value, and the rollout policy over features of moves."""
    from agents.alphago import parts as on_disk
    from agents.alphago.rollout import RolloutPolicy

    info, weights = load_agent_files(folder)
    with rebuilding(folder, "an agent with these weights"):
        parts = on_disk.from_files(info, weights)
    found = {}
    for name, network in (("policy", parts.policy), ("value", parts.value)):
        if network is not None:
            size = network.config["size"]
            planes = Array("planes", (BATCH, network.config["planes"], size, size), torch.uint8, 2)
            found[name] = Network(network, [planes], ["policy_logits" if name == "policy" else "value"])
    if parts.rollout is not None:
        rollout = RolloutPolicy(len(parts.rollout))
        rollout.weight.data = torch.from_numpy(parts.rollout)
        moves = Dim("moves")
        features = Array("features", (BATCH, moves, Dim("slots")), torch.int64, len(parts.rollout))
        candidates = Array("candidates", (BATCH, moves), torch.bool)
        found["rollout"] = Network(rollout, [features, candidates], ["policy_logits"])
    return found


# -- without a world ---------------------------------------------------------------------------------------------------


def classifier(folder: Path) -> dict[str, Network]:
    """Of `images`: images -> logits [batch, classes]."""
    from experiments.supervised.image_classifier import load_classifier

    model, info = load_classifier(folder)
    images = Array("images", (BATCH, *info["config"]["in_shape"]), torch.uint8)
    return {"": Network(model, [images], ["logits"])}


def line(folder: Path) -> dict[str, Network]:
    """Of `heights`: x [batch, predictors] -> y [batch], in float64."""
    from experiments.supervised.regression import load_line

    model, _, names = load_line(folder)
    return {"": Network(model, [Array("x", (BATCH, len(names)), torch.float64)], ["y"])}


def language_model(folder: Path) -> dict[str, Network]:
    """tokens [batch, length] -> logits of what follows each; a recurrent one has a state beside both."""
    from experiments.sequences.text_model import load_model
    from rlkit.nn.language import GPT

    loaded, config = load_model(folder)
    model: Any = loaded
    vocabulary = len(config["vocabulary"]) or 256
    longest = config["context"] if isinstance(model, GPT) else None
    tokens = Array("tokens", (BATCH, Dim("length", max=longest)), torch.int64, vocabulary)
    if isinstance(model, GPT):
        return {"": Network(model, [tokens], ["logits"])}
    inputs, outputs, about = states(CORE_STATES[config["model"]], model.core.initial_state(1))

    def call(tokens: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        if not torch.compiler.is_exporting():
            logits, state = model(tokens, state)
            return logits, *state
        x, last = model.embed(tokens), []
        for layer in range(model.core.layers):
            x, end = scanned(config["model"], model.core.weights(layer), x, tuple(part[:, layer] for part in state))
            last.append(end)
        return model.out(x), *(torch.stack(parts, 1) for parts in zip(*last, strict=True))

    return {"": Network(model, [tokens, *inputs], ["logits", *outputs], call, about)}


def scanned(kind: str, weights: Any, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(what one layer of recurrent cells makes of x [B, T, D], its last state) by the equations, in a loop that a graph
    can hold for any T: torch's kernels would be unrolled for the T of the example.
    """
    from torch._higher_order_ops.scan import scan  # not a public name

    def step(state: tuple[Tensor, ...], x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        state = STEPS[kind](x, state, weights)
        return state, state[0].clone()

    state, y = scan(step, tuple(part.clone() for part in state), x.transpose(0, 1).contiguous())
    return y.transpose(0, 1), state


def translator(folder: Path) -> dict[str, Network]:
    """Encoder and decoder. A Transformer's decoder reads all tokens so far, a recurrent one's the last, and has a
    state.
    """
    from experiments.sequences.translator import load
    from rlkit.nn.language import EncoderDecoder

    translator = load(folder)
    model: Any = translator.model
    vocabulary = translator.tokenizer.get_vocab_size()
    longest = Dim("length", max=translator.config["context"])
    source = Array("source", (BATCH, longest), torch.int64, vocabulary)
    mask = Array("mask", (BATCH, longest), torch.bool)
    if not isinstance(model, EncoderDecoder):
        return recurrent_translator(model, source, mask)
    target = Array("target", (BATCH, Dim("target_length", max=translator.config["context"])), torch.int64, vocabulary)
    memory = Array("memory", (BATCH, longest, model.embed.embedding_dim))

    def encode(source: Tensor) -> tuple[Tensor, Tensor]:
        memory, mask = model.encode(source)
        return memory, mask[:, 0, 0]

    def decode(target: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        return model.decode(target, (memory, mask[:, None, None]))

    return {
        "encoder": Network(model, [source], ["memory", "mask"], encode),
        "decoder": Network(model, [target, memory, mask], ["logits"], decode),
    }


def recurrent_translator(model: Any, source: Array, mask: Array) -> dict[str, Network]:
    """The encoder ends with the decoder's first state; without attention, the decoder has of the source that and a
    summary.
    """
    cells, kind, channels, (batch, longest) = (
        model.encoder.cells,
        model.encoder.kind,
        model.encoder.features,
        source.sizes,
    )
    names = CORE_STATES[kind]

    def layer(x: Tensor, way: str) -> Tensor:
        weights = [getattr(cells, f"{name}_l0{way}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        return scanned(kind, weights, x, tuple(x.new_zeros(x.shape[0], channels) for _ in names))[0]

    def rows(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index[:, :, None].expand(-1, -1, channels))

    def read(source: Tensor) -> tuple[Tensor, ...]:
        """`model.encode` without packed sequences, which a graph cannot hold: what reads backwards gets each row turned
        around within its own length.
        """
        lengths = (source != 0).sum(1, keepdim=True).clamp(min=1)
        places = torch.arange(source.shape[1])
        turned = (lengths - 1 - places).clamp(min=0)
        x = model.embed_source(source)
        ahead, back = layer(x, ""), rows(layer(rows(x, turned), "_reverse"), turned)
        memory = torch.cat([ahead, back], 2) * (places < lengths)[:, :, None]
        summary = torch.cat([rows(ahead, lengths - 1)[:, 0], back[:, 0]], 1)
        return memory, memory if model.attention is None else model.attention.keys(memory), source != 0, summary

    def encode(source: Tensor) -> tuple[Tensor, ...]:
        encoded = read(source) if torch.compiler.is_exporting() else model.encode(source)
        return *(encoded[3:] if model.attention is None else encoded[:3]), *model.begin(encoded)

    def decode(token: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state, known = rest[: len(names)], rest[len(names) :]
        encoded = (None, None, None, *known) if model.attention is None else (*known, None)
        logits, state, _ = model.step(token, state, encoded)
        return logits, *state

    token = Array("token", (batch,), torch.int64, source.high)
    state = [Array(name, (batch, 1, channels)) for name in names]
    if model.attention is None:
        known = [Array("summary", (batch, 2 * channels))]
    else:
        features = channels if model.attention.keys(torch.zeros(1, 1, 2 * channels)).shape[2] else 0
        known = [Array("memory", (batch, longest, 2 * channels)), Array("keys", (batch, longest, features)), mask]
    outputs = [array.name for array in (*known, *state)]
    return {
        "encoder": Network(model, [source], outputs, encode),
        "decoder": Network(model, [token, *state, *known], ["logits", *(f"next_{name}" for name in names)], decode),
    }


def reader(folder: Path) -> dict[str, Network]:
    """Of `pretraining`: tokens [batch, length] -> logits, each from all tokens (masked) or those up to it (causal); of
    the other objectives, from those that `seen` [batch, length, length] says, which stand at `places` [length].
    """
    from experiments.sequences.objectives import MASK, SIZE
    from experiments.sequences.reader import load_reader

    model, config = load_reader(folder)
    objective = config["objective"]
    length = Dim("length")
    inputs = [Array("tokens", (BATCH, length), torch.int64, SIZE)]
    if objective not in ("masked", "causal"):
        inputs += [Array("places", (length,), torch.int64, 64), Array("seen", (BATCH, length, length), torch.bool)]

    def call(tokens: Tensor, places: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        places = torch.arange(tokens.shape[1]) if places is None else places
        seen = None if seen is None else seen[:, None]
        return model.head(model.features(tokens, places, seen, objective == "causal"), model.embed.weight)

    return {"": Network(model, inputs, ["logits"], call, {"mask_token": MASK})}


KINDS: dict[str, Callable[[Path], dict[str, Network]]] = {
    "dqn": q_network,
    "recurrent_dqn": recurrent_q_network,
    "pqn": q_network,
    "alphazero": board_network,
    "alphago": alphago_networks,
    "classifier": classifier,
    "line": line,
    "language_model": language_model,
    "translator": translator,
    "pretraining": reader,
}
