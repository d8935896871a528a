"""Block × timestep map with its marginal means: one block is chosen by click or by key."""
