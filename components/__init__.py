"""The Pulumi components of one endpoint, one per file. Each arrow of the program passes one of them on."""
