"""Head grid with thresholds: block × head map and ratio histogram, drawn and recoloured in the browser."""
