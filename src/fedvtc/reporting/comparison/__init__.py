"""The table of many runs: trials become groups of equal settings, groups become cells, cells become text.

`trials.py` and `long_csv.py` read trials, `groups.py` puts trials that differ in their seed only into one group,
`pairing.py` finds the baseline of each group, `evaluations.py` refuses to mix numbers up to a target, `sheet.py` makes
cells, `formats.py` writes them.
"""
