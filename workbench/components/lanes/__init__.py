"""Lanes of blocks by step: which ran, which were skipped, how close it was; a cell is turned over by click or by key."""
