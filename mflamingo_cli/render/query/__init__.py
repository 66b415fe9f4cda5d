"""Which records are written and what of them: fields, filters, order."""
