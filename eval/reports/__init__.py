"""Results as people read them: tables, pictures, one page."""
