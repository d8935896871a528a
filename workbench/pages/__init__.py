"""The pages of the app (heads, runs, jobs) and the panels they are made of; Streamlit is imported only here and nearby."""
