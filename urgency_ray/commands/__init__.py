"""One module a command: each strings wings together and knows no other command; demo alone strings commands."""
