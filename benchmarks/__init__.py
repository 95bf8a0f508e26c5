"""Each module prints one table and says against what it is measured; the machine's noise cancels in its ratios."""
