"""Reads the HTML pages that the app writes."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The tags, the visible text and the image sources of a page; fails on tags that are not closed."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.sources, self.text, self.best = [], [], [], "", []
        self._in_best = False
        self.feed(html)
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)
        self._in_best = ("class", "best") in attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data + " "
            if self._in_best and data.strip():
                self.best.append(data.strip())


def read_self_contained(path):
    """Return the page in a file, which must not refer to anything outside."""
    html = path.read_text()
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert {source[:22] for source in page.sources} <= {"data:image/png;base64,"}
    return page
