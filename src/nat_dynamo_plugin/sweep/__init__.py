"""`dynamo_sweep`: a numeric optimizer for `nat optimize` that proves what it finds. Importing this package is cheap."""
