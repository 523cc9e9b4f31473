"""Tables and figures as files: LaTeX, Markdown, CSV, pictures, and the document that includes them all."""
