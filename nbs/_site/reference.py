"""What an API page says of a public name: signature, parameters with shapes and units, what it returns and raises,
methods, source.
"""

import ast
import inspect
import re
import textwrap
from configparser import ConfigParser, SectionProxy
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from fastcore.docments import docments

ROOT = Path(__file__).parents[2]
LONG = 12  # lines of a constant's value that are shown


def settings() -> SectionProxy:
    "The values of settings.ini."
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf8")
    return parser["DEFAULT"]


def plain(text):
    return " ".join(str(text or "").split())


def code(text):
    return f"`{plain(text)}`".replace("|", r"\|") if plain(text) else ""


def prose(text) -> str:
    "A comment or docstring as Markdown: `<name>` outside of code is text, and no tag."
    parts = re.split(r"(`[^`]*`)", str(text or ""))
    return "".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def cell(text):
    return prose(plain(text)).replace("|", r"\|")


def label(module: str, name: str) -> str:
    "The target of a public name. Sphinx ignores case, and `Live` and `live` are two things."
    kind = "-constant" if name.isupper() else "-class" if name[0].isupper() else ""
    return f"{module}.{name}{kind}".lower()


def annotation(found) -> str:
    "A type as one would write it, without the modules' names."
    if found is inspect.Parameter.empty or found is None:
        return ""
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", found if isinstance(found, str) else inspect.formatannotation(found))


@lru_cache
def words() -> list[tuple[set, dict]]:
    "The sections of nbs/explanation/words.md: the modules that each is about, none for the first, and its words."
    parts = (ROOT / "nbs" / "explanation" / "words.md").read_text(encoding="utf8").split("\n## ")[1:]
    modules = [re.search(r"^Modules: (.+)", part, re.M) for part in parts]
    return [
        (set(re.findall(r"`([\w.]+)`", m[1])) if m else set(), dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", part, re.M)))
        for m, part in zip(modules, parts)
    ]


@lru_cache
def own_types() -> set[str]:
    "The names of the library's classes: a parameter of such a type is explained there."
    return {
        node.name
        for path in (ROOT / "adaptseg").rglob("[!_]*.py")
        for node in ast.parse(path.read_text(encoding="utf8")).body
        if isinstance(node, ast.ClassDef)
    }


def meaning(module: str, name: str, comment, kind: str = "") -> str:
    """A parameter's comment, or what its name means in this module, or everywhere; nothing where its type is a class of
    the library, which has a page.
    """
    if comment or kind.removesuffix(" | None") in own_types():
        return comment or ""
    (_, everywhere), *rooms = words()
    return next(
        (found[name] for modules, found in rooms if module in modules and name in found), everywhere.get(name, "")
    )


def ranged(anno: str, value: str | None) -> dict:
    "pydantic's Field as a range: `Annotated[int, Field(ge=1)]` -> `int >= 1`; `Field(3, ge=1)` -> 3."
    signs = dict(ge=">=", gt=">", le="<=", lt="<")

    def limits(text):
        return "".join(f" {signs[k]} {v}" for k, v in re.findall(r"\b(ge|gt|le|lt)=([\d.e+-]+)", text))

    anno = re.sub(r"Annotated\[(\w+), Field\(([^()]*)\)\]", lambda m: m[1] + limits(m[2]), anno)
    if value and (m := re.fullmatch(r"(?:Field|field)\((.*)\)", value)):
        anno, value = anno + limits(m[1]), re.split(r",? ?\w+=", m[1])[0]
    return dict(anno=anno, default=value)


def fields(cls) -> dict:
    """Name -> annotation, default and comment of a class's annotated lines (dataclasses, pydantic models), its bases'
    first; a comment stands behind a line, or above it."""
    bases = [b for b in reversed(cls.__mro__) if b.__module__.startswith(("adaptseg", cls.__module__))]
    return {name: row for base in bases for name, row in own_fields(base).items()}


def own_fields(cls) -> dict:
    "As `fields`, of the class alone."
    text = textwrap.dedent(inspect.getsource(cls))
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body[0].body:
        if not isinstance(node, ast.AnnAssign):
            continue
        rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()  # ast counts bytes
        above = [line.strip() for line in lines[: node.lineno - 1]]
        start = next((i for i in range(len(above), 0, -1) if not above[i - 1].startswith("#")), 0)
        comment = rest.partition("#")[2].strip() or " ".join(line.lstrip("# ") for line in above[start:])
        found[node.target.id] = dict(
            **ranged(ast.unparse(node.annotation), node.value and ast.unparse(node.value)), docment=comment
        )
    return found


def has_fields(obj) -> bool:
    return inspect.isclass(obj) and (hasattr(obj, "model_fields") or hasattr(obj, "__dataclass_fields__"))


def parameters(obj) -> dict:
    "Name -> annotation, default and comment of what a thing is called with; what comes back under `return`."
    if has_fields(obj):
        return fields(obj)
    if inspect.isclass(obj) and not getattr(obj.__init__, "__module__", "").startswith("adaptseg"):
        return {}
    found = docments(obj.__init__ if inspect.isclass(obj) else obj, full=True, args_kwargs=True)
    if inspect.isclass(obj):
        found.pop("return", None)
    return {k: dict(v) for k, v in found.items() if k != "self"}


def parameter_table(module: str, obj) -> str:
    "A row for each parameter, and one for the result."
    rows = []
    for key, found in parameters(obj).items():
        kind = annotation(found["anno"])
        if key == "return" and not found["docment"] and kind in ("", "None"):
            continue
        value = found["default"] if has_fields(obj) else signature_defaults(obj).get(key)
        rows.append(
            f"| {'*returns*' if key == 'return' else code(key)} | {code(kind)} | {code(value)} | "
            f"{cell(meaning(module, key, found['docment'], kind))} |"
        )
    return "\n".join(["| parameter | type | default | meaning |", "| --- | --- | --- | --- |", *rows]) if rows else ""


def signature_defaults(obj) -> dict:
    "Defaults as they are shown: texts in quotes, long values cut."
    try:
        found = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):
        return {}
    text = lambda v: (
        v.__name__ if inspect.isfunction(v) or inspect.isclass(v) else textwrap.shorten(repr(v), 60, placeholder=" ...")
    )
    return {p.name: text(p.default) for p in found if p.default is not p.empty}


def arguments(obj) -> str:
    "The names between the brackets."
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    try:
        found = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):
        return ""
    return ", ".join(stars.get(p.kind, "") + p.name for p in found if p.name != "self")


def raised(obj) -> list[str]:
    "The errors that its own lines raise, and those of the checks that it calls."
    tree, found = ast.parse(textwrap.dedent(inspect.getsource(obj))), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            found.append(getattr(node.exc, "func", node.exc))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_choice":
            found.append(ast.Name("ValueError"))
    return sorted({f.id for f in found if isinstance(f, ast.Name) and f.id[0].isupper()})


def methods(cls) -> str:
    """A row for each public method and property that the class defines itself; what has no docstring is named below, as
    fastai's events.
    """
    rows, mute = [], []
    for name, thing in vars(cls).items():
        if name.startswith("_"):
            continue
        called = thing.fget if isinstance(thing, property) else inspect.unwrap(getattr(thing, "__func__", thing))
        if not inspect.isfunction(called):
            continue
        shown, text = code(name if isinstance(thing, property) else f"{name}({arguments(called)})"), called.__doc__
        if text:
            rows.append(f"| {shown} | {cell(text)} |")
        else:
            mute.append(shown)
    table = "\n".join(["| method or property | what it does |", "| --- | --- |", *rows]) if rows else ""
    return "\n\n".join(
        part for part in (table, f"{'Also' if rows else 'Defines'} {', '.join(mute)}." if mute else "") if part
    )


def source_address(module: str, line: int) -> str:
    """Where the source is to be read: at the project's own address, or while that is none, in the copy that the site
    holds.
    """
    host, branch = (settings()[k] for k in ("git_url", "branch"))
    file = module.replace(".", "/")
    if "example.org" in host:
        return f"{'../' * (1 + file.count('/'))}source/{file}.html#L{line}"
    return f"{host}/blob/{branch}/adaptseg/{file}.py#L{line}"


def entry(module: str, name: str, level: int) -> str:
    "All about one function or class, in Markdown."
    obj = getattr(import_module(f"adaptseg.{module}"), name)
    origin = inspect.unwrap(obj)
    errors = raised(origin)
    link = f'<a class="source" href="{source_address(module, inspect.getsourcelines(origin)[1])}">source</a>'
    call = f"{'class ' if inspect.isclass(obj) else ''}{name}({arguments(origin)})"
    parts = [
        f"({label(module, name)})=\n{'#' * level} {name}",
        link,
        f"```python\n{textwrap.fill(call, 76, subsequent_indent='    ')}\n```",
        prose(inspect.getdoc(obj)),
        parameter_table(module, origin),
        f"Raises {', '.join(map(code, errors))}." if errors else "",
        methods(obj) if inspect.isclass(obj) else "",
    ]
    return "\n\n".join(p for p in parts if p)


def constants(module: str, names: list[str], text: str) -> str:
    "The public values of one export cell as they are written there."
    lines = text.splitlines()
    if len(lines) > LONG:
        lines = [*lines[:LONG], "..."]
    return (
        "\n".join(f"({label(module, n)})=" for n in names)
        + "\n```python\n"
        + "\n".join(line[:400] for line in lines)
        + "\n```"
    )


def cell_entries(module: str, source: str, level: int) -> list[str]:
    "What is public in one export cell, in the order in which it stands there."
    public, found = set(import_module(f"adaptseg.{module}").__all__), []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            if node.name in public:
                found.append(entry(module, node.name, level))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [
                n.id for t in targets for n in getattr(t, "elts", [t]) if isinstance(n, ast.Name) and n.id in public
            ]
            if names:
                found.append(constants(module, names, ast.get_source_segment(source, node)))
    return found
