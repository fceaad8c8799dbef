"""How a report of scores is written: its rows in order, its formats, its files.

What belongs here is input and output of reports. What a cell holds is the rules' business
(`scores.report`); nothing here knows Beam, a database or the command line.
"""
