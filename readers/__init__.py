"""Files → cases → (image, target): decoding, class tables, the layouts of data sets, splits, and the label doctor."""
