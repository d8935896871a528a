"""Two buttons that save a plotly figure as PNG or SVG; the browser draws it, offline."""
