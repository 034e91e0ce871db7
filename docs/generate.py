"""Writes what is generated: the references of config keys and methods, conf/base.yaml, and tables of results.

A table of results stands between a comment with its command and the comment `end of table`.

python docs/generate.py
"""

import io
import re
import shlex
from contextlib import chdir, redirect_stdout
from importlib import import_module
from pathlib import Path

from fedvtc.commands.main import main
from fedvtc.config.reference import base_yaml, config_page
from fedvtc.learning import methods

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "docs/methods"
WITH_TABLES = (ROOT / "README.md", ROOT / "docs/leaderboard.md", ROOT / "docs/results.md")
TABLE = re.compile(r"(<!-- (fedvtc table [^\n]*) -->\n).*?(<!-- end of table -->)", re.DOTALL)
METHODS_PAGE = """# Methods

Every method runs in the same harness: the same partition, backbones, first weights, batches and evaluation. A page
names the source, the messages, the kept state, the predictor, the exposure of a client to the server, the cost, and
each difference from paper and authors' code. The cost is in floating-point operations of the whole run, as a multiple
of [Local](local.md); the [leaderboard](../leaderboard.md#costs) has the measured numbers. The keys are in
[the reference](../reference/config.md); `conf/method/` has a file for each method.
[Adding a method](../adding-a-method.md) shows how to write a method.

| method | |
|---|---|
{rows}

```{{toctree}}
:hidden:
:glob:

*
```
"""


def methods_page() -> str:
    """Returns the page that lists all methods, each with the first line of its module and a link to its page."""
    rows = []
    for name in methods.names():
        text = (import_module(f"{methods.__name__}.{name}").__doc__ or "").strip().partition("\n")[0]
        # The page of FedVTC is older than the folder, and all documents link to it.
        page = "../method.md" if name == "fedvtc" else f"{name}.md"
        rows.append(f"| [{name}]({page}) | {text} |")
    return METHODS_PAGE.format(rows="\n".join(rows))


def with_tables(text: str) -> str:
    """Returns a document in which each table of results is made again by its command."""
    return TABLE.sub(lambda found: f"{found[1]}\n{_printed(found[2])}\n{found[3]}", text)


def _printed(command: str) -> str:
    with chdir(ROOT), redirect_stdout(io.StringIO()) as printed:
        code = main(shlex.split(command)[1:])
    if code:
        raise ValueError(f"{command}: exit code {code}")
    return printed.getvalue()


def generated() -> dict[Path, str]:
    """Returns the text of each generated file."""
    return {
        ROOT / "docs/reference/config.md": config_page(methods.config_classes()),
        ROOT / "conf/base.yaml": base_yaml(),
        METHODS / "index.md": methods_page(),
        **{path: with_tables(path.read_text(encoding="utf-8")) for path in WITH_TABLES},
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
