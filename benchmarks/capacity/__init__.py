"""How many replicas a load needs: measured costs, a formula, and a simulation held against both."""
