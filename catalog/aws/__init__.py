"""What the program knows of AWS: instance types, prices, what its errors mean, and what an account must have."""
