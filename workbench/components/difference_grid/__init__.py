"""Block × head grid of B − A: diverging colours around zero, signs and roles in words; a head is chosen by click or key."""
