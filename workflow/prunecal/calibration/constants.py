"""Settings that are part of metrics' names, apart from arrays so that the catalogue stays light."""

BIN_COUNTS = (5, 10, 20, 30, 50)  # further numbers of bins in which ECE is reported
COVERAGE, RISK = 0.8, 0.05  # of risk_at_80_coverage and coverage_at_5_risk
