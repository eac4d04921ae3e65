"""What the program knows: pure data and functions, without Pulumi and without I/O."""
