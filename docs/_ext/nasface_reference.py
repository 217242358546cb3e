"""Sphinx directives for the parts of the reference that are generated: recipe keys and plug-ins with their options."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nasface import plugins
from nasface import recipe as recipes
from nasface.recipe import Recipe
from nasface.stages.experiment.plan import Plan

MISSING = object()


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a recipe or an option of a plug-in."""

    name: str
    hint: Any
    default: Any
    about: str = ""


def described(doc: str, names: list[str]) -> dict[str, str]:
    """What a Google-style docstring says of some names: 'name: text' or 'one, two: text', also after a semicolon."""
    found: dict[str, str] = {}
    known = "|".join(map(re.escape, names))
    start = re.compile(rf"(?:^|; |\. )((?:{known})(?:, (?:{known}))*): ") if names else re.compile("(?!)")
    paragraph = ""
    for line in [*inspect.cleandoc(doc).splitlines(), ""]:
        text = line.strip()
        if paragraph and (
            not text or start.match(text) or re.match(r"[\w, ]+: |(Args|Attributes|Raises|Returns):$", text)
        ):
            places = list(start.finditer(paragraph))
            ends = [place.start() for place in places[1:]] + [len(paragraph)]
            for place, end in zip(places, ends, strict=bool(places)):
                words = paragraph[place.end() : end].strip()
                found |= dict.fromkeys(place[1].split(", "), words)
            paragraph = ""
        paragraph = f"{paragraph} {text}".strip()
    return found


def keys(model: type) -> list[Key]:
    """The fields of a pydantic model or of a dataclass."""
    if issubclass(model, BaseModel):
        names = list(model.model_fields)
        hints = {
            name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            for name, field in model.model_fields.items()
        }
        defaults = {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}
    else:
        hints = get_type_hints(model, include_extras=True)
        names = [field.name for field in dataclasses.fields(model)]
        defaults = {
            field.name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            for field in dataclasses.fields(model)
        }
    about = described(model.__doc__ or "", names)
    if issubclass(model, BaseModel):
        about |= {name: field.description for name, field in model.model_fields.items() if field.description}
    return [Key(name, hints[name], defaults[name], about.get(name, "")) for name in names]


def options(group: str, factory: Callable[..., Any]) -> list[Key]:
    """The options of a plug-in, read off its signature."""
    parameters = list(inspect.signature(factory).parameters.values())[plugins.SUPPLIED.get(group, 0) :]
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    doc = inspect.getdoc(factory) or ""
    if inspect.isclass(factory):
        doc += f"\n\n{inspect.getdoc(factory.__init__) or ''}"
    about = described(doc, [parameter.name for parameter in parameters])
    return [
        Key(
            parameter.name,
            hints.get(parameter.name, Any),
            MISSING if parameter.default is inspect.Parameter.empty else parameter.default,
            about.get(parameter.name, ""),
        )
        for parameter in parameters
    ]


def type_text(hint: Any) -> str:
    """A type with its range, as a reader of YAML would say it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        ranges = ", ".join(filter(None, map(range_text, args[1:])))
        return f"{type_text(args[0])}, {ranges}" if ranges else type_text(args[0])
    if origin is Literal:
        return " | ".join(f"``{value}``" for value in args)
    if origin in (Union, types.UnionType):
        return " | ".join("null" if arg is type(None) else type_text(arg) for arg in args)
    if origin is dict:
        return "mapping"
    if origin in (tuple, list, Sequence):
        inner = [type_text(arg) for arg in args if arg is not Ellipsis]
        return f"list of {inner[0]}" if len(inner) == 1 or len(set(inner)) > 1 else f"list of {len(inner)}: {inner[0]}"
    return {"str": "text", "Path": "path", "bool": "true or false", "Any": "anything"}.get(
        getattr(hint, "__name__", str(hint)), getattr(hint, "__name__", str(hint))
    )


def range_text(limit: Any) -> str:
    """The range that an annotation allows, or ''."""
    parts = limit if isinstance(limit, annotated_types.Interval) else [limit]
    said = []
    for part in parts:
        for kind, attribute, sign in (
            (annotated_types.Ge, "ge", "≥"),
            (annotated_types.Gt, "gt", ">"),
            (annotated_types.Le, "le", "≤"),
            (annotated_types.Lt, "lt", "<"),
        ):
            if isinstance(part, kind):
                value = getattr(part, attribute)
                said.append(f"{sign} {'2^63' if value == 2**63 else value}")
    return ", ".join(said)


def value_text(value: Any) -> str:
    """A default as YAML would have it."""
    if any(value is missing for missing in (MISSING, PydanticUndefined, dataclasses.MISSING)):
        return "required"
    if value is None:
        return "``null``"
    if isinstance(value, bool):
        return f"``{str(value).lower()}``"
    if isinstance(value, tuple | list):
        return f"``[{', '.join(map(str, value))}]``"
    if value == "":
        return "empty"
    if isinstance(value, dict):
        return f"``{{{', '.join(f'{key}: {inner}' for key, inner in value.items())}}}``"
    return f"``{value}``"


def section_type(hint: Any) -> type | None:
    """The class behind a key that is a section of its own, or None."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is dict:  # name: section
        hint = get_args(hint)[1]
    return hint if inspect.isclass(hint) and (issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint)) else None


def sections(model: type, path: str = "") -> Iterator[tuple[str, type]]:
    """A model and all sections below it, by their dotted path."""
    yield path, model
    for key in keys(model):
        inner = section_type(key.hint)
        if inner is not None:
            name = f"{key.name}.NAME" if get_origin(key.hint) is dict else key.name
            yield from sections(inner, f"{path}.{name}".lstrip("."))


def table(rows: list[Key]) -> list[str]:
    """A list-table of keys."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 20 25 15 40", ""]
    lines += ["   * - key", "     - type and range", "     - default", "     - meaning"]
    for key in rows:
        inner = section_type(key.hint)
        about = key.about or (first_line(inner) if inner else "")
        kind = "section" if inner else type_text(key.hint)
        default = "see there" if inner and not isinstance(key.default, dict) else value_text(key.default)
        lines += [f"   * - ``{key.name}``", f"     - {kind}", f"     - {default}", f"     - {escaped(about)}"]
    return [*lines, ""]


def first_line(thing: Any) -> str:
    """The summary of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def escaped(text: str) -> str:
    """Text of a docstring as reStructuredText: code stays code, bars and stars are themselves."""
    return re.sub(r"(`+[^`]*`+)|([|*\\])", lambda found: found[1] or f"\\{found[2]}", text)


class Generated(SphinxDirective):
    """A directive that parses the reStructuredText which `lines` makes."""

    def lines(self) -> Iterator[str]:
        """The text."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse it here."""
        for module in ("nasface/sections.py", "nasface/plugins.py"):
            self.env.note_dependency(module)
        container = nodes.section()
        container.document = self.state.document
        text = StringList(list(self.lines()), source="generated")
        self.state.nested_parse(text, self.content_offset, container, match_titles=True)
        return container.children


class RecipeKeys(Generated):
    """Every section of a recipe with its keys."""

    def lines(self) -> Iterator[str]:
        """One part for each section; sections that share a class stand together."""
        for model in (Recipe, Plan):
            paths: dict[type, list[str]] = {}
            for path, section in sections(model, "" if model is Recipe else "experiment"):
                paths.setdefault(section, []).append(path)
            for section, places in paths.items():
                title = ", ".join(places) if places != [""] else "top level"
                yield from (f".. rubric:: {title}", "", escaped(first_line(section)), "")
                yield from table(keys(section))


class PluginOptions(Generated):
    """Every installed plug-in of nasface itself with its options."""

    def lines(self) -> Iterator[str]:
        """One part for each group and plug-in."""
        for group, kind in plugins.GROUPS.items():
            yield from (f".. rubric:: {kind}: entry points ``nasface.{group}``", "")
            found = plugins.names(group)
            if not found:
                yield from ("None is built in.", "")
            for name in found:
                factory = plugins.load(group, name)
                yield from (f"``{name}``", f"   {escaped(first_line(factory))}", "")
                rows = options(group, factory)
                yield from (f"   {line}" for line in (table(rows) if rows else ["It takes no options.", ""]))


class ShippedRecipes(Generated):
    """The recipes that come with nasface."""

    def lines(self) -> Iterator[str]:
        """One line for each."""
        for row in recipes.listing():
            yield f"* ``{row['name']}`` ({row['kind']}): {escaped(row['about'])}"


def plain_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Bars and stars of docstrings are no markup; lines that napoleon has made are."""
    made = ("..", ":", "*args", r"\*")
    lines[:] = [line.replace("|", r"\|") if line.lstrip().startswith(made) else escaped(line) for line in lines]


def plain_help(app: Sphinx, ctx: Any, lines: list[str]) -> None:
    """The same for help texts."""
    lines[:] = [escaped(line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_directive("plugin-options", PluginOptions)
    app.add_directive("shipped-recipes", ShippedRecipes)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("sphinx-click-process-description", plain_help)
    return {"parallel_read_safe": True}
