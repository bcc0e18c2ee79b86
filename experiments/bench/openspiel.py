"""OpenSpiel's AlphaZero player as a program: it makes a move for each line that it reads (see `turns.in_process`).

Its arguments are simulations, channels, blocks, and threads of torch (0: its default).
"""

SCRIPT = """
import sys
import numpy as np
import pyspiel
import torch
from open_spiel.python.algorithms import mcts
from open_spiel.python.utils.lru_cache import LRUCache
from rlkit.search.inference import Inference, priors_of
from experiments.bench.board_networks import board_network

simulations, channels, blocks, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads or torch.get_num_threads())
network, cache = Inference(board_network(channels, blocks), "fp32"), LRUCache(2**16)

class Evaluator(mcts.Evaluator):  # as open_spiel.python.algorithms.alpha_zero.evaluator, which is bound to jax
    def ask(self, state):
        board, mask = np.asarray(state.observation_tensor()), np.asarray(state.legal_actions_mask())
        def infer():
            planes = np.zeros((1, 17, 9, 9), np.uint8)  # not what it was made for, but as much work
            planes[0, :4] = board.reshape(4, 9, 9)
            logits, value = network(planes)
            return value[0], priors_of(logits, mask[None] > 0)[0]
        return cache.make(board.tobytes() + mask.tobytes(), infer)

    def evaluate(self, state):
        value, _ = self.ask(state)
        return np.array([value, -value])

    def prior(self, state):
        _, policy = self.ask(state)
        return [(action, policy[action]) for action in state.legal_actions()]

game, best = pyspiel.load_game("go(board_size=9)"), mcts.SearchNode.puct_value
bot = mcts.MCTSBot(game, 1.41, simulations, Evaluator(), False, None, best, dont_return_chance_node=True)
for _ in sys.stdin:
    cache.clear()
    bot.step(game.new_initial_state())
    print(1, flush=True)
"""
