"""The report of a suite as one HTML page: tables, and pictures as SVG in it; nothing is fetched, nothing runs.

Published figures stand beside ours: Mnih et al. 2015 (Extended Data Table 2, which has the best linear learner of
Bellemare et al. 2013), the 57-game suites' human scores, and the training curves of Dopamine (Castro et al. 2018).
"""

import io
import itertools
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from envs.atari import HUMANS, reference_scores
from experiments.control.suite_runs import Run, Suite, aggregates, binned, by_game, interval, profile
from rlkit.evaluate import bootstrap_interval

# Okabe and Ito 2008: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PAPER, LINEAR = "#999999", "#DDDDDD"
MARKERS = {
    "DQN": "o", "DQN (Adam + MSE in JAX)": "s", "C51": "^", "Quantile (JAX)": "v", "Rainbow": "D", "IQN": "P",
}  # fmt: skip
HOLLOW: dict[str, Any] = {"color": "#555555", "linestyle": "", "markersize": 5, "markerfacecolor": "none"}
BINS, TAUS, HIGHEST_TAU = 100, 161, 8.0
NONE = "&ndash;"

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 1180px; margin: 2em auto;
       padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .3em .6em; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th { border-bottom: 2px solid #888; vertical-align: bottom }
th:first-child, td:first-child, .words td { text-align: left } .words td:first-child { font-weight: 600 }
td { white-space: nowrap } .words td { white-space: normal }
.missing { color: #a33c00; font-style: italic } .note { color: #555; font-size: 13px; max-width: 75em }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: .5em }
figure { margin: 0 } svg { max-width: 100%; height: auto }
"""


def figure(width: float, height: float) -> Any:
    """An empty picture of so many inches. Raises ModuleNotFoundError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError("pictures need the extra `plot`: pip install -e '.[plot]'") from error
    return Figure((width, height), layout="constrained")


def svg(picture: Any, label: str) -> str:
    """A picture as an element of the page; `label` is for those who cannot see it."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):
        picture.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    return f'<figure role="img" aria-label="{escape(label)}">{element[element.index("<svg") :]}</figure>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML already."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    top = "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>\n" if head else ""
    return f'<div class="wide"><table class="{kind}">{top}{body}</table></div>'


def number(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{value:,.{digits}f}".replace("-", "&minus;")


def span(low_high: Sequence[float] | None, digits: int = 1) -> str:
    return f"{number(low_high[0], digits)} to {number(low_high[1], digits)}" if low_high else NONE


def millions(frames: float) -> str:
    return f"{frames / 1e6:,.3g} M" if frames >= 1e4 else f"{frames:,.0f}"


def missing(text: str) -> str:
    return f'<span class="missing">{escape(text)}</span>'


def published(game: str) -> dict[str, Any]:
    return reference_scores().get(game, {})


def nearest_millions(frames: int) -> int | None:
    """The largest published number of frames (millions) of Dopamine's curves that is not above ours; None: all are."""
    curve = next(iter(published("pong")["dopamine"].values()))
    return max((int(key) for key in curve if int(key) * 1e6 <= frames), default=None)


def colour(suite: Suite, preset: str) -> str:
    return COLOURS[suite.presets.index(preset) % len(COLOURS)]


# -- tables ----------------------------------------------------------------------------------------------------------


def what_was_run(suite: Suite) -> str:
    done = [run for run in suite.runs if run.state == "finished"]
    protocols = sorted({f"{run.protocol}, {run.episodes} episodes" for run in done})
    rows = [
        ("Games", escape(", ".join(suite.games))),
        ("Presets", escape(", ".join(suite.presets)) + " of `dqn`"),
        ("Seeds", ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in suite.runs))),
        ("Emulator frames of a run", f"{suite.frames:,}"),
        ("Other settings", f"<code>{escape(suite.extra)}</code>" if suite.extra else "the presets' own"),
        ("Protocol of the final evaluation", escape("; ".join(protocols)) or NONE),
        ("Hardware", "<br>".join(map(escape, suite.hardware)) or NONE),
        ("Finished", f"{len(done)} of {len(suite.runs)} runs"),
    ]
    return table((), rows, "words")


def missing_runs(suite: Suite) -> str:
    rows = [
        (escape(run.preset), escape(run.game), str(run.seed), missing(state(run)))
        for run in suite.runs
        if run.state != "finished"
    ]
    if not rows:
        return "<p>None: all planned runs have finished.</p>"
    return table(("preset", "game", "seed", "state"), rows)


def state(run: Run) -> str:
    return "missing" if run.state == "missing" else f"unfinished, at {millions(run.frames)} frames"


def raw_scores(suite: Suite) -> str:
    """Our final evaluations beside the published scores."""
    head = (
        "game", "preset", "seeds", "mean raw score", "95 % interval over seeds", "normalised, human 2015",
        "normalised, human 57", "random", "human 2015", "human 57", "linear 2013", "DQN 2015",
    )  # fmt: skip
    rows = []
    for game, preset in itertools.product(suite.games, suite.presets):
        runs, known = suite.cell(preset, game), published(game)
        scores = [run.score for run in runs if run.score is not None]
        mean = float(np.mean(scores)) if scores else None
        columns = [[v for run in runs if (v := getattr(run, column)) is not None] for column in HUMANS]
        seeds = f"{len(scores)} of {len(runs)}"
        rows.append(
            (
                escape(game),
                escape(preset),
                seeds if len(scores) == len(runs) else missing(seeds),
                missing("missing") if mean is None else number(mean),
                span(bootstrap_interval(np.array(scores)) if len(scores) > 1 else None),
                *(number(float(np.mean(values)) if values else None, 2) for values in columns),
                *(number(known.get(key)) for key in ("random", "human_nature", "human_57", "linear", "dqn_nature")),
            )
        )
    return table(head, rows)


def dopamine_scores(suite: Suite) -> str:
    """Dopamine's agents at the nearest published number of frames that is not above ours."""
    if (at := nearest_millions(suite.frames)) is None:
        return f"<p>None is published at {millions(suite.frames)} frames or fewer; the first is at 5 M.</p>"
    rows = []
    for game in suite.games:
        ours = []
        for preset in suite.presets:
            scores = [run.score for run in suite.cell(preset, game) if run.score is not None]
            ours.append(number(float(np.mean(scores))) if scores else missing("missing"))
        curves = published(game).get("dopamine", {})
        rows.append((escape(game), *ours, *(number(curves.get(agent, {}).get(str(at))) for agent in MARKERS)))
    ours_head = [f"ours, {escape(preset)}, {millions(suite.frames)}" for preset in suite.presets]
    note = f"Dopamine: training score, sticky actions, at {at} M frames, mean of five seeds (Castro et al. 2018)."
    return f'<p class="note">{note}</p>' + table(("game", *ours_head, *map(escape, MARKERS)), rows)


def summary(suite: Suite) -> str:
    head = ("preset", "normalised by", "games", "runs", "median", "95 % interval", "IQM", "95 % interval")
    rows = []
    for row in aggregates(suite):
        counts = [f"{row[what]} of {row[f'{what}_planned']}" for what in ("games", "runs")]
        whole = [row[what] == row[f"{what}_planned"] for what in ("games", "runs")]
        rows.append(
            (
                escape(row["preset"]),
                {"human_nature": "human 2015", "human_57": "human 57"}[row["column"]],
                *(text if all_ else missing(text) for text, all_ in zip(counts, whole, strict=True)),
                number(row["median"], 3),
                span(row["median_interval"], 3),
                number(row["iqm"], 3),
                span(row["iqm_interval"], 3),
            )
        )
    return table(head, rows)


# -- pictures --------------------------------------------------------------------------------------------------------


def tidy(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)


def profiles(suite: Suite) -> str:
    """Share of runs above each normalised score, by both columns."""
    picture = figure(10.5, 3.6)
    for axis, column in zip(picture.subplots(1, 2, sharey=True), HUMANS, strict=True):
        found = {preset: by_game((r for r in suite.runs if r.preset == preset), column) for preset in suite.presets}
        everything = np.concatenate([np.zeros(1), *(runs for games in found.values() for runs in games.values())])
        # Runs beyond the highest tau are still counted: they keep the curve above 0 at its right end.
        taus = np.linspace(min(0.0, everything.min()) - 0.05, min(everything.max() * 1.05 + 0.1, HIGHEST_TAU), TAUS)
        for preset, games in found.items():
            if not (scores := list(games.values())):
                continue
            several = any(len(runs) > 1 for runs in scores)
            axis.step(taus, profile(scores, taus), where="post", color=colour(suite, preset), label=preset)
            if several:
                band = interval(lambda drawn: profile(drawn, taus), scores, resamples=2000)  # noqa: B023
                axis.fill_between(taus, *band, step="post", color=colour(suite, preset), alpha=0.2, linewidth=0)
        axis.set_xlabel(f"normalised score tau ({'human 2015' if column == 'human_nature' else 'human 57'})")
        axis.set_ylim(-0.03, 1.03)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, title="preset")
        else:
            axis.text(
                0.5, 0.5, "no finished run of a game with published scores", ha="center", transform=axis.transAxes
            )
        tidy(axis)
    picture.axes[0].set_ylabel("share of runs above tau")
    return svg(picture, "performance profile")


def learning_curves(suite: Suite) -> str:
    """One picture a game: seeds thin, dashed where unfinished; the finished ones' mean thick; Dopamine's as points."""
    edges = np.linspace(0, suite.frames, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    scale, unit = (1e6, "million emulator frames") if suite.frames >= 1e5 else (1, "emulator frames")
    out = []
    for game in suite.games:
        picture = figure(4.4, 3.1)
        axis = picture.subplots()
        for preset in suite.presets:
            whole = []
            for run in suite.cell(preset, game):
                frames, score = suite.curves.get((preset, game, run.seed), (np.empty(0), np.empty(0)))
                if not len(frames):
                    continue
                y = binned(frames, score, edges)
                seen, finished = ~np.isnan(y), run.state == "finished"
                style = {"color": colour(suite, preset), "linestyle": "-" if finished else "--"}
                axis.plot(middle[seen] / scale, y[seen], **style, linewidth=0.7, alpha=0.6)
                whole += [y] if finished else []
            if whole:
                mean = np.mean(whole, axis=0)  # nan where one of them has no episode
                seen = ~np.isnan(mean)
                axis.plot(middle[seen] / scale, mean[seen], color=colour(suite, preset), linewidth=2.2)
        for agent, marker in MARKERS.items():
            points = published(game).get("dopamine", {}).get(agent, {})
            at = [(int(key) * 1e6 / scale, value) for key, value in points.items() if int(key) * 1e6 <= suite.frames]
            if at:
                axis.plot(*zip(*at, strict=True), marker=marker, **HOLLOW, clip_on=False)
        if not axis.lines:
            axis.text(0.5, 0.5, "no run", ha="center", va="center", color="#a33c00", transform=axis.transAxes)
            axis.set_yticks([])
        axis.set_title(game, fontsize=10)
        axis.set_xlim(0, suite.frames / scale)
        axis.set_xlabel(unit)
        axis.set_ylabel("training score")
        axis.locator_params(nbins=5)
        tidy(axis)
        out.append(svg(picture, f"learning curves of {game}"))
    return legend(suite) + f'<div class="curves">{"".join(out)}</div>'


def legend(suite: Suite) -> str:
    """Presets by colour; Dopamine's agents by marker, where any of their points lies in the pictures."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour(suite, p), linewidth=2.2, label=f"ours: {p}") for p in suite.presets]
    if nearest_millions(suite.frames) is not None and any(published(game) for game in suite.games):
        handles += [Line2D([], [], marker=m, label=f"Dopamine: {agent}", **HOLLOW) for agent, m in MARKERS.items()]
    columns = min(4, len(handles))
    picture = figure(10.5, 0.25 + 0.22 * -(-len(handles) // columns))
    picture.legend(handles=handles, ncols=columns, loc="center", frameon=False, fontsize=9)
    return svg(picture, "legend of the learning curves")


def figure_3(suite: Suite) -> str:
    """Bars of 100 (score - random) / (human - random), the games in the order of the paper's DQN."""

    def percent(game: str, score: float) -> float:
        row = published(game)
        return 100 * (score - row["random"]) / (row["human_nature"] - row["random"])

    games = [game for game in suite.games if "human_nature" in published(game)]
    if not games:
        return "<p>No game of this suite is in the paper.</p>"
    games.sort(key=lambda game: percent(game, published(game)["dqn_nature"]))  # the best one is on top
    means = {
        preset: {game: float(s.mean()) for game, s in by_game(r for r in suite.runs if r.preset == preset).items()}
        for preset in suite.presets
    }
    series = [
        ("best linear learner (Bellemare et al. 2013)", LINEAR, {g: published(g).get("linear") for g in games}),
        ("DQN (Mnih et al. 2015), 200 M frames", PAPER, {g: published(g)["dqn_nature"] for g in games}),
        *(
            (f"ours: {p}, {millions(suite.frames)} frames", colour(suite, p), {g: means[p].get(g) for g in games})
            for p in suite.presets
        ),
    ]
    bar = 0.8 / len(series)
    picture = figure(10.5, 1.4 + len(games) * (0.18 + 0.2 * len(series)))
    axis = picture.subplots()
    axis.set_xscale("symlog", linthresh=100, linscale=1.5)  # to the human's 100 % evenly, beyond by ratios
    widest = 100.0
    for i, (label, hue, scores) in enumerate(series):
        drawn = False
        for row, game in enumerate(games):
            y = row + 0.4 - (len(series) - i - 0.5) * bar
            if (score := scores[game]) is None:
                axis.text(3, y, "missing", va="center", fontsize=8, style="italic", color="#a33c00")
                continue
            value = percent(game, score)
            widest = max(widest, abs(value))
            axis.barh(
                y, value, 0.92 * bar, color=hue, label=None if drawn else label, edgecolor="#666666", linewidth=0.4
            )
            axis.annotate(
                f"{value:.0f} %", (max(value, 0), y), (3, 0), textcoords="offset points", va="center", fontsize=8
            )
            drawn = True
        if not drawn:
            axis.barh(0, 0, color=hue, label=f"{label}: missing")
    lowest = axis.get_xlim()[0]
    axis.set_xlim(min(lowest, -2), widest * 1.7)
    ticks = [t for t in (-1000, -500, -200, -100, -50, 0, 25, 50, 75, 100, 200, 500, 1000, 2000, 5000, 10000)]
    ticks = [tick for tick in ticks if axis.get_xlim()[0] <= tick <= widest * 1.7]
    axis.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axis.minorticks_off()
    axis.axvline(100, color="#222222", linewidth=1, linestyle=":")
    axis.axvline(0, color="#222222", linewidth=0.8)
    axis.set_yticks(range(len(games)), games)
    axis.set_ylim(-0.6, len(games) - 0.4)
    axis.set_xlabel("100 (score - random) / (human - random), human of the 2015 paper; dotted: as good as the human")
    tidy(axis)
    axis.grid(visible=False, axis="y")
    handles, labels = axis.get_legend_handles_labels()
    picture.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return svg(picture, "normalised scores of the games, as Figure 3 of Mnih et al. 2015")


# -- the page --------------------------------------------------------------------------------------------------------

STATISTICS = """Normalised: (score &minus; random) / (human &minus; random), with the human of Mnih et al. 2015 and with
that of the 57-game suites. Median: over games, of each game's mean. IQM: mean of the middle half of all runs of all
games. Intervals: 95 %, 10,000 resamples of the seeds within each game (stratified bootstrap, Agarwal et al. 2021); none
where every game has one run, and a game with one run adds nothing to their width. Only finished runs of games with
published scores count: where some are missing, the numbers are not those of the whole suite."""
CURVES = """Raw score of training episodes, exploring as training does, in bins of a hundredth of the frames: each seed
thin (dashed: unfinished), the mean of finished seeds thick, where all have episodes. Dopamine's points: training
score, sticky actions (Castro et al. 2018), at their published numbers of frames up to ours."""
RAW = """Final evaluation after training, protocol as above; interval: bootstrap over seeds. Published: Mnih et al. 2015
(random, human 2015, linear: the best linear learner of Bellemare et al. 2013, DQN 2015: after 200 M frames), and the
human of the 57-game suites."""
FIGURE_3 = """The form of Figure 3 in Mnih et al. 2015, games sorted by the paper's DQN; ours: mean of finished seeds.
The axis is even up to 100 % and logarithmic beyond."""


def page(suite: Suite) -> str:
    """The whole report."""
    done = sum(run.state == "finished" for run in suite.runs)
    title = f"Atari suite: {len(suite.games)} games, {', '.join(suite.presets)}, {millions(suite.frames)} frames"
    sections = [
        ("What was run", "", what_was_run(suite)),
        ("Raw scores", RAW, raw_scores(suite)),
        ("Beside Dopamine's agents", "", dopamine_scores(suite)),
        ("Median and interquartile mean", STATISTICS, summary(suite)),
        (
            "Performance profile",
            "Share of runs above each normalised score; band: pointwise, as above.",
            profiles(suite),
        ),
        ("Learning curves", CURVES, learning_curves(suite)),
        ("Against the paper's agents", FIGURE_3, figure_3(suite)),
        ("Missing runs", "" if done == len(suite.runs) else "Planned, and not counted above.", missing_runs(suite)),
    ]
    body = "".join(
        f"<h2>{escape(name)}</h2>\n" + (f'<p class="note">{note}</p>\n' if note else "") + f"{content}\n"
        for name, note, content in sections
    )
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>\n{body}</body></html>\n'
