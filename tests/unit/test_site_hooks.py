"""The site's links: what the files of the repository name is found there too."""

from types import SimpleNamespace

import pytest

from tools.site_hooks import PAGES, ROOT, on_page_markdown

DOCS = [file.relative_to(ROOT / "docs").as_posix() for file in sorted((ROOT / "docs").rglob("*.*"))]
FILES = SimpleNamespace(src_uris={*DOCS, *PAGES.values()})


def shown(markdown, page="index.md", url=None):
    here = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    return on_page_markdown(markdown, here, SimpleNamespace(repo_url=url), FILES)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        # README.md is the index; a file of docs/ loses that folder.
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
        # The site's own and the web's stay.
        ("index.md", "[x](#part) [w](https://flower.ai)", "[x](#part) [w](https://flower.ai)"),
        # What the site does not have is named.
        ("deployment.md", "[tests/deployment](../tests/deployment)", "tests/deployment"),
        (
            "results.md",
            "its [card](../fgl_app/assets/digits/README.md)",
            "its card (`fgl_app/assets/digits/README.md`)",
        ),
        # What nobody has is left for MkDocs to print_error of, and code is code.
        ("index.md", "[n](docs/nothing.md)", "[n](docs/nothing.md)"),
        ("index.md", "```\n[r](docs/results.md)\n```", "```\n[r](docs/results.md)\n```"),
    ],
)
def test_a_link_leads_where_it_does_in_the_repository(page, link, expected):
    assert shown(link, page) == expected


def test_a_repository_with_an_address_is_linked():
    linked = shown("[examples/](examples)", url="https://example.org/fgl")
    assert linked == "[examples/](https://example.org/fgl/blob/HEAD/examples)"
