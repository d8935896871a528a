"""A button that copies a text, or the page's own link, with one click."""
