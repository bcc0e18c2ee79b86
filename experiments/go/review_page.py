"""A game's analysis as one HTML page that needs no other file and no other host; its scripts are in experiments/web."""

import base64
import hashlib
import html
import json
from dataclasses import asdict
from pathlib import Path

from experiments.go.game_analysis import GameAnalysis

WEB = Path(__file__).parent.parent / "web"


def page(analysis: GameAnalysis) -> str:
    """The page. Nothing from the record is markup in it: it stands in a block of JSON, and the script sets text."""
    style = "".join((WEB / name).read_text(encoding="utf-8") for name in ("base.css", "review.css"))
    script = "\n".join((WEB / name).read_text(encoding="utf-8") for name in ("board.js", "charts.js", "review.js"))
    data = json.dumps(asdict(analysis), separators=(",", ":"))
    for sign in "<>&":  # no "</script>", "<!--" or entity may stand there
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    title = html.escape(f"{analysis.black or 'Black'} - {analysis.white or 'White'}")
    # The browser then runs nothing but this script, and fetches nothing, whatever stands in the record.
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style></head>\n<body>\n"
        f"{(WEB / 'review.html').read_text(encoding='utf-8')}"
        f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>\n</body></html>\n'
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
