"""Elements, and that nothing of others gets into a page as one."""

from __future__ import annotations

from xml.etree import ElementTree

from markupsafe import Markup

from nat_dynamo_plugin.drawing.svg import element, joined, number, picture, title


def test_texts_and_attributes_are_escaped() -> None:
    made = element("a", "<script>alert(1)</script>", href='"><script>', title="a & b")
    assert made == ('<a href="&#34;&gt;&lt;script&gt;" title="a &amp; b">&lt;script&gt;alert(1)&lt;/script&gt;</a>')


def test_elements_within_elements_stay() -> None:
    assert element("g", element("title", "x<y"), None, 3) == "<g><title>x&lt;y</title>3</g>"


def test_names_of_attributes() -> None:
    assert element("rect", class_="s1", stroke_width=2, x=1.25, y=None) == '<rect class="s1" stroke-width="2" x="1.2"/>'
    assert element("i", class_="s1") == '<i class="s1"></i>'


def test_numbers_are_short() -> None:
    assert [number(value) for value in (3.0, 0.04, -0.04, 12.34, 100)] == ["3", "0", "0", "12.3", "100"]


def test_a_picture_is_well_formed_and_named() -> None:
    drawn = picture(100, 20, [element("path", title('a "b"'), d="M0 0h1z")], label="load <1>", stretched=True)
    root = ElementTree.fromstring(str(drawn))
    assert root.attrib == {
        "viewBox": "0 0 100 20", "height": "20", "preserveAspectRatio": "none", "role": "img", "aria-label": "load <1>"
    }  # fmt: skip
    assert root[0][0].text == 'a "b"'
    assert "height" not in ElementTree.fromstring(str(picture(1, 1, [], label="x"))).attrib


def test_no_title_for_no_text() -> None:
    assert title(None) is None and title("") is None
    assert joined([Markup("<b/>"), Markup("<i/>")]) == "<b/><i/>"
