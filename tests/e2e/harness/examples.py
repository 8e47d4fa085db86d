"""The examples of the documents, as they stand there: of README.md, and of the manual's section 7.

An example of a manual page is a literal block behind a comment that names its kind: `.\\" example: python`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from .server import REPOSITORY

README = REPOSITORY / "README.md"
GUIDES = sorted((REPOSITORY / "man").glob("*.7"))
GUIDE_ADDRESS = "localhost:8000"

BLOCK = re.compile(r'^(?:\.\\" example: (\w+)\n)?\.Bd -literal.*\n((?:(?!\.Ed$).*\n)*)', re.MULTILINE)
FENCE = re.compile(r"^```(\w+)\n((?:(?!```).*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """One of them; its name tells where it stands."""

    name: str
    kind: str
    text: str

    def against(self, server) -> str:
        """Its text with the address of a server in place of the document's."""
        return self.text.replace(GUIDE_ADDRESS, f"127.0.0.1:{server.port}")


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def of_page(path: Path) -> list[Example]:
    """The examples of a manual page; kind `unmarked` is a block that nobody said anything about."""
    page = path.read_text()
    return [Example(f"{path.name}:{_line(page, found.start())}", found[1] or "unmarked", found[2].replace("\\e", "\\"))
            for found in BLOCK.finditer(page)]  # fmt: skip


def of_readme() -> list[Example]:
    """Fenced blocks by their language, and each line of indented blocks that asks the server."""
    page = README.read_text()
    fenced = [Example(f"README.md:{_line(page, found.start())}", found[1], found[2]) for found in FENCE.finditer(page)]
    lines = [Example(f"README.md:{_line(page, found.start())}", "sh", found[1])
             for found in re.finditer(r"^    (curl .*\n)", page, re.MULTILINE)]  # fmt: skip
    return fenced + lines


def all_of(kind: str) -> list[Example]:
    """The examples of one kind, of all documents."""
    return [example for path in GUIDES for example in of_page(path) if example.kind == kind] + [
        example for example in of_readme() if example.kind == kind
    ]


def the_only(kind: str) -> Example:
    """The example of a kind of which there is one."""
    (example,) = all_of(kind)
    return example
