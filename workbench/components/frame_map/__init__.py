"""The frame map: attention of one head from every query frame to every key frame, linked to the players of the page."""
