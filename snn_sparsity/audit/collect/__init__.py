"""What measures: subject, protocols, battery, attacks, diagnostics, journal."""
