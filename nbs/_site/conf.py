"""Sphinx's settings of the site. Nothing is loaded from another host: formulas become MathML, which browsers draw
themselves, by docutils' own converter; search is Sphinx's.
"""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project, author, html_title = "adaptseg", "The adaptseg authors", "adaptseg"
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline", "attrs_block"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # tables that a cell shows
nb_ipywidgets_js = {}
highlight_language = "none"
html_math_renderer = "mathml"
html_theme, html_static_path, html_css_files = "pydata_sphinx_theme", ["static"], ["style.css"]
html_show_sourcelink = html_copy_source = html_show_sphinx = False
html_theme_options = dict(
    navbar_align="left",
    header_links_before_dropdown=8,
    show_prev_next=True,
    navigation_with_keys=False,
    secondary_sidebar_items=["page-toc"],
    navbar_persistent=["search-button"],
    footer_start=["copyright"],
    footer_end=[],
    pygments_light_style="tango",
    show_nav_level=1,
    show_toc_level=2,
)
html_sidebars = {"index": []}
copyright = "2026 onwards, The adaptseg authors. Apache-2.0"


def inline_formula(self, node):
    self.body.append(f'<span class="math">{tex2mathml(node.astext())}</span>')
    raise nodes.SkipNode


def formula(self, node):
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
    return dict(parallel_read_safe=True, parallel_write_safe=True)
