"""The templates of the pages: jinja2 with the page's filters and language; nothing is loaded from outside the package."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from urgency_ray.report import language, words
from urgency_ray.report.files import View


def open_environment() -> jinja2.Environment:
    """What the templates are compiled with: `{% trans %}` and `_()` look words up in the language of the page."""
    loader = jinja2.FunctionLoader(lambda name: resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"]
    )
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_callables(language.look_up, _look_up_plural, newstyle=True)  # type: ignore[attr-defined]
    environment.filters |= words.FILTERS
    environment.globals["language"] = language.spoken
    return environment


def _look_up_plural(one: str, many: str, number: int) -> str:
    return language.look_up(one if number == 1 else many)


def render(name: str, view: View) -> str:
    """A page as HTML."""
    return open_environment().get_template(name).render(view)


def markup(svg: str) -> Markup:
    """A chart for a template."""
    return Markup(svg)  # noqa: S704 - matplotlib escapes what it draws, svg.py the rest
