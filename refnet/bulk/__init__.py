"""A folder or a table of images in, a row for each of them out. Here is what a caller can choose."""

#: What the rows are written as.
FORMATS = ("parquet", "jsonl")
#: Where the work is done.
RUNNERS = ("local", "daft", "ray")
#: Images that go through the network at once.
BATCH = 16
#: How many classes are wanted if the caller says nothing.
TOP = 5
#: Rows of a shard, at most: what a killed job loses of its work.
SHARD_ROWS = 1000
