"""A folder or a table of images in, a row for each of them out."""
