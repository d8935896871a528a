"""The table of results on the demo model: rows, jobs, measurements, answers, and the page that shows them."""
