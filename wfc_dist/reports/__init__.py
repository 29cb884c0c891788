"""Everything that a person looks at: tables, plots and pages."""
