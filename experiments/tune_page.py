"""The page about a search: one file that needs nothing else, its script neither."""

import html
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.tune_trials import state_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ENOUGH = 10
"""complete trials, at the least, for saying what matters"""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.4em } pre { background: #f4f4f4; padding: .7em; white-space: pre-wrap }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .15em .8em; text-align: left }
tr:nth-child(even) { background: #f7f7f7 }
"""


def page(study: "Study", title: str, tag: str, line: str) -> str:
    """All of it. line: the best settings as a command line."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    body = [f"<h1>{html.escape(title)}</h1>"]
    if complete:
        best = f"Best: trial {study.best_trial.number}, {html.escape(tag)} {study.best_value:.6g}"
        body += [f"<p>{best}</p>", f"<pre>{html.escape(line)}</pre>", *figures(study, tag, len(complete))]
    else:
        body.append("<p>No trial is complete yet.</p>")
    body += ["<h2>Trials</h2>", table(study, tag)]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f"<!DOCTYPE html><html><head>{head}</head><body>{''.join(body)}</body></html>"


def figures(study: "Study", tag: str, complete: int) -> list[str]:
    """How the best grew, what mattered, and all settings with their values; the script stands in the first."""
    from optuna import visualization

    draw: dict[str, Callable[..., Any]] = {
        "How the best one grew": visualization.plot_optimization_history,
        "What matters": visualization.plot_param_importances,
        "All complete trials": visualization.plot_parallel_coordinate,
    }
    values = {trial.value for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"}
    out: list[str] = []
    for name, plot in draw.items():
        out.append(f"<h2>{name}</h2>")
        if name == "What matters" and (complete < ENOUGH or len(values) == 1):
            out.append(f"<p>It takes {ENOUGH} complete trials that differ to say that; there are {complete}.</p>")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figure = plot(study, target_name=tag)
        figure.update_layout(title=None, template="plotly_white")
        first = not any("<script" in text for text in out)
        bare = {"displayModeBar": False}  # its buttons, one of which opens a page on the web
        out.append(figure.to_html(bare, full_html=False, include_plotlyjs=first, default_height="450px"))
    return out


def table(study: "Study", tag: str) -> str:
    """All trials, the best ones first, and what came of the others."""
    trials = study.get_trials(deepcopy=False)
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    up = study.direction.name == "MAXIMIZE"

    def order(trial: "FrozenTrial") -> tuple:
        kinds = ("complete", "pruned", "running", "waiting", "failed", "lost")
        value = trial.value if trial.value is not None else 0.0
        return kinds.index(state_of(trial)), -value if up else value

    rows = [["trial", tag, *names, "state", "evaluations", "minutes"]]
    for trial in sorted(trials, key=order):
        state = state_of(trial)
        if state == "failed":
            state += f": {trial.user_attrs['error']}"
        value = "" if trial.value is None else f"{trial.value:.6g}"
        minutes = f"{trial.duration.total_seconds() / 60:.1f}" if trial.duration else ""
        settings = [short(trial.params.get(name, "")) for name in names]
        rows.append([str(trial.number), value, *settings, state, str(len(trial.intermediate_values)), minutes])
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def short(value: object) -> str:
    """A value of a setting, for reading."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
