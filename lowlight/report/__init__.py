"""Reports drawn from the rows of an evaluation: statistics, tables, plots and a page. Nothing here loads a model."""
