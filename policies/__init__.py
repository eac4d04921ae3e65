"""What no stack of this program may ask AWS for, whoever changes the program."""
