"""The video player: one to four videos on one transport, frame by frame, side by side, wiped or subtracted."""
