"""A GPU machine on AWS: made here, part by part, and from then on a machine that SSH reaches."""
