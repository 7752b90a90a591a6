"""SVG and HTML elements, with everything escaped that is no element itself.

What is drawn comes from runs: names, errors and prompts of others. A `Markup` is an element made here; any other value
is text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape


def element(_name: str, *children: Any, **attributes: Any) -> Markup:
    """An element.

    Args:
        _name: of the element.
        children: elements, and texts, which are escaped; `None` is left out.
        attributes: `None` is left out; `class_` is `class`, `stroke_width` is `stroke-width`, and numbers are written
            short.
    """
    written = "".join(
        f' {name.strip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(str(escape(child)) for child in children if child is not None)
    if not inner:
        return Markup(f"<{_name}{written}/>") if _name in _EMPTY else Markup(f"<{_name}{written}></{_name}>")
    return Markup(f"<{_name}{written}>{inner}</{_name}>")


# HTML's parser closes these within SVG as XML's does.
_EMPTY = frozenset({"rect", "path", "line", "circle", "polyline", "polygon", "use"})


def _attribute(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(escape(value))


def number(value: float) -> str:
    """A coordinate with at most one digit after the point."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def title(text: str | None) -> Markup | None:
    """What a browser shows when the pointer rests on the element that it is in."""
    return element("title", text) if text else None


def picture(width: float, height: float, parts: Iterable[Markup], *, label: str, stretched: bool = False) -> Markup:
    """An `<svg>` that is as wide as the room it is given.

    Args:
        width: of the drawing, in its own units.
        height: likewise.
        parts: what is in it.
        label: what a screen reader says.
        stretched: whether it is `height` pixels high whatever its width; for pictures without text.
    """
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {number(width)} {number(height)}",
        height=height if stretched else None,
        preserveAspectRatio="none" if stretched else None,
        role="img",
        aria_label=label,
    )


def joined(parts: Iterable[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)
