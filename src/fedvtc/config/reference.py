"""Texts generated from the fields of the config: docs/reference/config.md and conf/base.yaml."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from fedvtc.config.fields import FieldDoc, as_yaml, field_docs, grouped_docs, leaves
from fedvtc.config.hints import choices
from fedvtc.config.schema import Config, MethodConfig

_PAGE_START = """\
# Config keys

Generated from the fields of the config by `python docs/generate.py`. `fedvtc run --help` prints the same keys.

Values are YAML, in files, on the command line and in sweep files alike. Numbers are those of YAML 1.2: 010 is 10, 0o10
is 8, 1e3 is 1000; 1_000 is 1000 too. A key of type text takes 010 as text.
"""

_RESUME_START = """
## Keys that may change on resume

`fedvtc resume RUN_FOLDER key=value` accepts new values of these keys. A new value of any other key is refused with
exit code 2, because the rounds before and after the change would belong to different runs.

| effect of a new value | keys |
|---|---|
"""

_YAML_START = """\
# Every config key with its default, as a start for your own files.
#   fedvtc run conf/base.yaml
#   fedvtc run conf/base.yaml run.rounds=30 partition.alpha=0.5
# Later files and key=value overrides win. A file may start with `include: [FILE, ...]`: paths relative to the file, or
# names of `fedvtc list configs`.
# Generated from the fields of the config by `python docs/generate.py`.
"""


def config_page(methods: Mapping[str, type[MethodConfig]]) -> str:
    """Returns docs/reference/config.md: a table for each section and method, and the keys that may change on resume.

    Args:
        methods: the section of each method, by the name of the method.
    """
    groups = grouped_docs(Config, methods)
    text = _PAGE_START
    for title, docs in groups.items():
        text += f"\n## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
        text += "".join(_row(doc) for doc in docs)
    effects: dict[str, list[str]] = {}
    for docs in groups.values():
        for doc in docs:
            if doc.effect is not None:
                effects.setdefault(doc.effect, []).append(f"`{doc.key}`")
    return text + _RESUME_START + "".join(f"| {effect} | {', '.join(keys)} |\n" for effect, keys in effects.items())


def base_yaml() -> str:
    """Returns conf/base.yaml: every key with its default and the first sentence of its text."""
    return _YAML_START + "\n".join(_yaml_lines()) + "\n"


def _row(doc: FieldDoc) -> str:
    kind = doc.type.replace(" | ", " or ") + (f", {doc.range}" if doc.range else "")
    return f"| `{doc.key}` | {kind} | `{doc.default}` | {doc.text} |\n"


def _yaml_lines() -> Iterator[str]:
    docs = {doc.key: doc for doc in field_docs(Config)}
    above: list[str] = []
    for leaf in leaves(Config):
        *sections, name = leaf.key.split(".")
        for depth, section in enumerate(sections):
            if sections[: depth + 1] != above[: depth + 1]:
                if depth == 0:
                    yield ""
                yield f"{'  ' * depth}{section}:"
        above = sections
        indent = "  " * len(sections)
        items = _items(leaf.default)
        line = f"{indent}{name}:" + ("" if items else f" {as_yaml(leaf.default)}")
        yield f"{line}  # {_comment(docs[leaf.key], leaf.hint)}"
        for item in items:
            yield f"{indent}  - {item}"


def _items(default: Any) -> list[str]:
    """Returns the entries of a list of sections, one to a line; for other values an empty list."""
    several = isinstance(default, list) and all(is_dataclass(item) for item in default)
    return [as_yaml(item) for item in default] if several else []


def _comment(doc: FieldDoc, hint: Any) -> str:
    sentence = doc.text.partition(". ")[0].rstrip(".") + "."
    told = all(f"`{choice}`" in sentence for choice in choices(hint))
    return sentence if told else f"{doc.type}. {sentence}"
