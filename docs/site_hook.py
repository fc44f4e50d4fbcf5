"""Build a site from the pages that GitHub shows: README as home page, links to code resolved.

A link to a module becomes a link to its page of the API reference, so a strict build fails when the
module has moved. A link to any other file outside docs/ becomes plain text after a check that the
file exists. Pictures outside docs/ are copied into the site.
"""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#:\s]+)\)")


def on_files(files, config):
    """Add the README as index.md, and the pictures that pages show from outside docs/."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme))
    pages = [readme, *(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/*.md"))]
    links = [link for page in pages for link in LINK.finditer(page) if link["image"]]
    for picture in {link["target"].removeprefix("../").removeprefix("docs/") for link in links}:
        if files.get_file_from_path(picture) is None:
            files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown, page, **_):
    """Rewrite the links of a page of this repository; pages of the API reference have none."""
    folder = ROOT if page.file.src_uri == "index.md" else ROOT / "docs"
    return LINK.sub(lambda link: _site_link(link, folder), markdown)


def _site_link(link, folder):
    path = (folder / link["target"]).resolve()
    if not path.exists():
        raise PluginError(f"the link {link[0]} leads nowhere; correct it")
    inside = path.relative_to(ROOT)
    if link["image"] or inside.parts[0] == "docs":
        return f"{link['image']}[{link['text']}]({inside.as_posix().removeprefix('docs/')})"
    if inside.suffix == ".py" and inside.parts[:2] == ("workflow", "prunecal"):
        module = inside.relative_to("workflow").with_suffix("").as_posix().replace("/", ".")
        return f"[{link['text']}][{module.removesuffix('.__init__')}]"
    return link["text"]
