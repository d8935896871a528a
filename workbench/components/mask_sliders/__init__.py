"""p and α as sliders, with what the mask keeps and costs following them in the browser."""
