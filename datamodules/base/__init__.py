"""What data sets are made of: episodes, streams, splits. May import datamodules.files and the core."""
