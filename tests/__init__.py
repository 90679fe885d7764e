"""Tests, one file per module, `test_scripts` and `test_mistakes` for the street as a user walks it."""
