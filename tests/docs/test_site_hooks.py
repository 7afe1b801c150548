"""The links of the documentation site."""

from types import SimpleNamespace

import pytest

from tools.site_hooks import PAGES, ROOT, on_page_markdown

DOCS = [file.relative_to(ROOT / "docs").as_posix() for file in sorted((ROOT / "docs").rglob("*.*"))]
FILES = SimpleNamespace(src_uris={*DOCS, *PAGES.values()})


def convert(markdown, page="index.md", url=None):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    return on_page_markdown(markdown, page, SimpleNamespace(repo_url=url), FILES)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        # README.md is the index; files of docs/ lose this folder.
        ("index.md", "[r](docs/results.md#a-part)", "[r](results.md#a-part)"),
        ("index.md", "![i](docs/images/synthetic_images.png)", "![i](images/synthetic_images.png)"),
        ("index.md", "[d](docker/README.md)", "[d](docker.md)"),
        ("deployment.md", "[d](../docker/README.md)", "[d](docker.md)"),
        (
            "api/plug-in.md",
            "[s](strategies.md), [g](../plug-in.md)",
            "[s](strategies.md), [g](../plug-in.md)",
        ),
        ("examples/plug_in_fgl.md", "[g](../../docs/plug-in.md)", "[g](../plug-in.md)"),
        # Links inside the page and to the web do not change.
        ("index.md", "[x](#part) [w](https://flower.ai)", "[x](#part) [w](https://flower.ai)"),
        # Files outside the site become their path.
        ("deployment.md", "[tests/deployment](../tests/deployment)", "tests/deployment"),
        (
            "results.md",
            "its [card](../fgl_app/assets/digits/README.md)",
            "its card (`fgl_app/assets/digits/README.md`)",
        ),
        # MkDocs reports broken links; code blocks do not change.
        ("index.md", "[n](docs/nothing.md)", "[n](docs/nothing.md)"),
        ("index.md", "```\n[r](docs/results.md)\n```", "```\n[r](docs/results.md)\n```"),
    ],
)
def test_links_lead_to_the_same_target_as_in_the_repository(page, link, expected):
    assert convert(link, page) == expected


def test_other_files_link_to_the_repository_address():
    link = convert("[examples/](examples)", url="https://example.org/fgl")
    assert link == "[examples/](https://example.org/fgl/blob/HEAD/examples)"
