"""Values and flow: what moves, what it moves through, and the accounting that lets nothing get lost."""
