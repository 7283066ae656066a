"""Sources of pictures: folders, zips, parquet files, shards, and kinds that other packages register (`base`)."""
