"""The tests; they need nothing but the project, and are skipped with a reason where they would."""
