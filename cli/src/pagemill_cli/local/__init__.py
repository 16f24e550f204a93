"""`pagemill run`: the three steps of a job as processes of this machine, with the rules of every other controller."""
