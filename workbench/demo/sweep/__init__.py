"""Where methods separate: more is cut, less is trained."""
