"""Lightning Server: a store over HTTP, for agents and trainers in other processes and on other machines."""
