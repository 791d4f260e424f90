"""Photos in, pictures out: which, where to, in what order, and what happens to each."""
