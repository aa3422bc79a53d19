"""What a dataset's files are and how they are read: layouts, splits, class tables, statistics."""
