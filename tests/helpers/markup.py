"""What a page of HTML holds, for tests."""

from html.parser import HTMLParser


class Elements(HTMLParser):
    """Checks that elements are closed in order, and keeps their names and texts."""

    void = ("br", "img", "meta", "input", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, _attributes):
        self.names.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attributes):
        self.names.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


class Page(HTMLParser):
    """Keeps a page's elements with the names of their attributes, and its text, in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, *sorted(name for name, _ in attributes)))

    def handle_comment(self, _):
        self.elements.append("comment")

    def handle_data(self, data):
        self.text += data
