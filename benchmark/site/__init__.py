"""Web pages: a sweep at a glance and each of its runs, from records alone; written once, or served live."""
