"""Test rows by column, by group and by weak segment."""
