"""One file for each paper, each with one `Method`."""
