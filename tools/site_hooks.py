"""MkDocs hooks of `make docs`: pages from files outside docs/, and links that work on the site and on GitHub.

MkDocs reads only docs/. These hooks add the README files and the changelog as pages without copying them.
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
"""Site page of each file outside docs/."""

FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^):#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the repository address from pyproject.toml, if it has one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.repo_url = project.get("urls", {}).get("Repository")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the files outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert the links of a page from repository paths to site paths."""
    page_uri = page.file.src_uri
    source = {page: source for source, page in PAGES.items()}.get(page_uri, f"docs/{page_uri}")

    def to_site_link(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        target_page = PAGES.get(target, target.removeprefix("docs/"))
        if target_page in files.src_uris:
            path = posixpath.relpath(target_page, posixpath.dirname(page_uri) or ".")
            return f"[{link['text']}]({path}{link['anchor'] or ''})"
        if not (ROOT / target).exists():
            # Unchanged, so that MkDocs reports the broken link.
            return link[0]
        if config.repo_url:
            return f"[{link['text']}]({config.repo_url}/blob/HEAD/{target})"
        return link["text"] if target in link["text"] else f"{link['text']} (`{target}`)"

    # Every second part is a fenced code block, which stays unchanged.
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(to_site_link, part) for part in parts[::2]]
    return "".join(parts)
