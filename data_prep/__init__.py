"""From what people download to data that can be trusted: `python -m data_prep.gta5 SOURCE... --out data`, and so for
each dataset.
"""
