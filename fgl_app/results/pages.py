"""HTML templates of the pages, in Python because Flower's app bundle contains no template files."""

from __future__ import annotations

import base64

_CSS = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1f2933; --muted: #5b6775; --line: #e1e5ea;
  --good: #0b6b4f; --good-back: #e3f5ee; --bad: #a8320a; --bad-back: #fdece4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161b; --card: #1b2128; --ink: #e6eaee; --muted: #9aa7b4; --line: #303944;
    --good: #6fd6b0; --good-back: #14322a; --bad: #ffa37f; --bad-back: #40211a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
.where { color: var(--muted); margin: .25rem 0 1rem; overflow-wrap: anywhere; }
.status { border-radius: .6rem; padding: .7rem 1rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
.status.running { background: var(--card); color: var(--muted); }
.status.completed { background: var(--good-back); color: var(--good); }
.status.failed, .status.unfinished { background: var(--bad-back); color: var(--bad); }
.resumed { color: var(--muted); margin: -.25rem 0 1rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.number, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem;
}
.number .name { color: var(--muted); font-size: .85rem; }
.number { padding: .8rem; }
.number .value { font-size: 1.35rem; font-weight: 650; line-height: 1.4; white-space: nowrap; }
.number .note { color: var(--muted); font-size: .85rem; }
.problems { margin-top: 1rem; }
.columns { columns: 2 22rem; column-gap: 1rem; margin-bottom: 1rem; }
.columns .card:last-child { margin-bottom: 0; }
.card { break-inside: avoid; margin: 0 0 1rem; }
figure.card { padding: .5rem; background: #ffffff; }
figure img { display: block; width: 100%; max-width: 36rem; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; }
.scroll:has(.long) { overflow-y: auto; max-height: 24rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .4rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 500; position: sticky; top: 0; background: var(--card); }
tbody th { font-weight: 400; white-space: nowrap; padding-right: 1rem; }
td { overflow-wrap: anywhere; }
.pairs th { width: 50%; }
.numeric :is(td, th + th) { text-align: right; white-space: nowrap; }
.total > * { font-weight: 650; }
.reference > * { color: var(--muted); font-style: italic; }
.changed > * { font-weight: 650; }
.below { color: var(--muted); font-size: .85rem; margin: .5rem 0 0; }
.problems .card { border-color: var(--bad); }
.problems th { white-space: normal; width: 35%; overflow-wrap: anywhere; }
.runs { width: auto; min-width: 100%; }
.runs :is(td, thead th) { min-width: 7rem; }
.runs thead th { color: var(--ink); overflow-wrap: anywhere; vertical-align: bottom; }
.runs :is(tbody th, thead td) {
  position: sticky; left: 0; background: var(--card); z-index: 1; min-width: 11rem;
}
.runs tbody th { white-space: normal; }
.runs .best { font-weight: 650; }
.key { display: block; width: 1.6rem; height: .3rem; border-radius: .15rem; margin-bottom: .2rem; }
.wide { max-width: none; }
@media (max-width: 30rem) {
  .runs :is(td, thead th) { min-width: 6rem; }
  .runs :is(tbody th, thead td) { min-width: 6rem; max-width: 7.5rem; }
  figure.card { padding: .25rem; }
  .incidents thead { display: none; }
  .incidents :is(tr, th, td) { display: block; }
  .incidents th { border: 0; padding-bottom: 0; color: var(--muted); }
  .problems .incidents th { width: auto; }
  .numeric tbody th, .numeric thead th + th { white-space: normal; }
  th, td { padding: .3rem .25rem; }
  .numeric { font-size: .82rem; }
  .incidents th::before { content: "node "; }
}
@media print {
  :root {
    --page: #fff; --card: #fff; --ink: #000; --muted: #444; --line: #bbb;
    --good: #0b6b4f; --good-back: #fff; --bad: #a8320a; --bad-back: #fff;
  }
  html { font-size: 11px; }
  main { max-width: none; padding: 0; }
  .status { border: 1px solid; }
  .scroll, .scroll:has(.long) { max-height: none; overflow: visible; }
  .tables { columns: 1; }
  .runs :is(td, th, thead th, thead td, tbody th) { min-width: 0; }
  .card:has(tr:nth-child(30)) { break-inside: auto; }
  tr { break-inside: avoid; }
}
"""

_TABLE = """{% macro card(table) %}
<section class="card{% if table.kind == "runs" %} wide{% endif %}">
<h2>{{ table.title }}</h2>
<div class="scroll"><table class="{{ table.kind }}">
{% if table.head %}
<thead><tr>{% for cell in table.head %}
{% if not cell %}<td></td>{% else %}<th scope="col">
{%- if table.colors %}<span class="key" style="background: {{ table.colors[loop.index0] }}"></span>{% endif %}
{{- cell }}</th>{% endif %}
{% endfor %}</tr></thead>
{% endif %}
<tbody>
{% for row in table.rows %}
<tr class="{{ row.style }}"><th scope="row">{{ row.name }}</th>
{% for cell in row.cells %}
<td{% if loop.index0 in row.best %} class="best"{% endif %}>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% if table.note %}<p class="below">{{ table.note }}</p>{% endif %}
</section>
{% endmacro %}
{% macro figures(pictures) %}
<div class="columns">
{% for picture in pictures %}
<figure class="card"><img src="{{ picture.uri }}" alt="{{ picture.caption }}"></figure>
{% endfor %}
</div>
{% endmacro %}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ css | safe }}</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
CONTENT
</main>
</body>
</html>
"""

REPORT = """<p class="where">{{ run }}{% if ended %} · {{ ended }}{% endif %}</p>
<p class="status {{ status }}"><strong>{{ status | capitalize }}</strong>
{%- if error %}: {{ error }}{% endif %}</p>
{% if resumed %}<p class="resumed">Resumed {{ resumed | join(", and ") }}.</p>{% endif %}

<section class="numbers" aria-label="Key figures">
{% for number in numbers %}
<div class="number"><div class="name">{{ number.name }}</div><div class="value">{{ number.value }}</div>
{% if number.note %}<div class="note">{{ number.note }}</div>{% endif %}</div>
{% endfor %}
</section>
<div class="problems">
{% for table in problems %}
{{ card(table) }}
{% endfor %}
</div>
{{ figures(pictures) }}
<div class="columns tables">
{% for table in tables %}
{{ card(table) }}
{% endfor %}
</div>"""

COMPARISON = """<p class="where">{{ created }}</p>
{{ card(tables[0]) }}
{{ figures(pictures) }}
{% for table in tables[1:] %}
{{ card(table) }}
{% endfor %}"""


def embed_png(png: bytes, caption: str) -> dict[str, str]:
    """Return a picture for the templates: the PNG as a data URI, and its caption."""
    return {"uri": f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}", "caption": caption}


def render(content: str, **values: object) -> str:
    """Return a whole HTML page from :data:`REPORT` or :data:`COMPARISON`.

    The values are ``title`` and the variables of the template; markup in them is escaped.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = _TABLE + _PAGE.replace("CONTENT", content)
    return environment.from_string(template).render(css=_CSS, **values).lstrip()
