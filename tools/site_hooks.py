"""What `make docs` does beyond MkDocs: pages from outside docs/, and links that hold here and on GitHub.

MkDocs shows what is in docs/ and nothing else. The README files of the repository stay where GitHub shows
them, and become pages without being copied.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
    "examples/plug_in_fgl/README.md": "examples/plug_in_fgl.md",
    "examples/plug_in_fedddpm/README.md": "examples/plug_in_fedddpm.md",
}
"""Page in the site of each file outside docs/."""

FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^):#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the repository's address from pyproject.toml, if it has one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.repo_url = project.get("urls", {}).get("Repository")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links relative to a page's place in the site; they are to its file's in the repository."""
    here = page.file.src_uri
    source = {page: source for source, page in PAGES.items()}.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        place = PAGES.get(target, target.removeprefix("docs/"))
        if place in files.src_uris:
            path = posixpath.relpath(place, posixpath.dirname(here) or ".")
            return f"[{link['text']}]({path}{link['anchor'] or ''})"
        if not (ROOT / target).exists():
            # As it is: MkDocs will print_error.
            return link[0]
        if config.repo_url:
            return f"[{link['text']}]({config.repo_url}/blob/HEAD/{target})"
        return link["text"] if target in link["text"] else f"{link['text']} (`{target}`)"

    # Code is left alone: every second part is a fenced block.
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)
