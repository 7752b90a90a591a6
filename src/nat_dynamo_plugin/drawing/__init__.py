"""Pictures for pages: inline SVG that needs neither a library nor JavaScript. Knows nothing of what it draws."""
