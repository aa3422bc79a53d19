"""What a run writes for people: text files, progress, pictures, the HTML report."""
