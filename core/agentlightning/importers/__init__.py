"""What other tools have recorded, imported as rollouts of a live run.

base        what reads the exports of one tool: a plugin, and what it is given
files       an export's files → its records, wherever they stand
into_store  records → a store: what is new, and what came later of what is there
"""
