"""Where pictures come from: folders, zips, parquet files, shards; each lists its records and reads some of them."""
